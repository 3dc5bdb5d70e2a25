"""The time until what a search would publish is good: Chiffre, compared with Optuna around a plain loop.

Every incumbent of a side, the best trial by what the side knows at that moment, is trained again on five fresh seeds
and cuts, as far as its trial had come. Their mean validation accuracy is a step of the side's curve at its true time.
The time of a side is when its curve reaches a target for good.
"""

import argparse
import json
from collections.abc import Iterator
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

from benchmarks.results import RESULTS, read, taken, write
from benchmarks.study.curve import curve_of
from benchmarks.study.judge import Judge
from benchmarks.study.rows import SIDES, Run, by_first_epoch, by_published, rows_of
from benchmarks.study.searches import SEARCHES, TargetSearch
from benchmarks.study.sides import LIMITS, search_by

QUICK_MINUTES = 20.0  # for all runs
SEARCHING = 0.5  # share of a quick run's time; judging takes the rest
Plan = tuple[TargetSearch, int, str]  # search, seed and side


def plan(searches: list[TargetSearch], sides: list[str], seeds: int | None) -> Iterator[Plan]:
    """Yield all runs; the sides take turns."""
    for seed in range(max(seeds or search.seeds for search in searches)):
        for search in searches:
            if seed < (seeds or search.seeds):
                yield from ((search, seed, side) for side in sides)


def run(wanted: Plan, seconds: float, judge: Judge) -> Run:
    """Do one run and judge it."""
    search, seed, side = wanted
    outcome = search_by(side, search, seed, seconds, judge)
    found = outcome.as_json()
    curve = curve_of(found["incumbents"], judge.accuracies(search, outcome.log.incumbents))
    return {"work": search.name, "seed": seed, "side": side, "limit": seconds, **found, "curve": curve, **taken()}


def run_full(wanted: list[Plan], limit: float, out: Path, judge: Judge) -> list[Run]:
    """Do the runs that the results lack, each of at most `limit` seconds, and add each when it ends."""
    runs: list[Run] = read(out).get("runs", [])
    for one in wanted:
        search, seed, side = one
        if any((r["work"], r["seed"], r["side"]) == (search.name, seed, side) for r in runs):
            continue
        runs.append(run(one, min(limit, LIMITS[side]), judge))
        show_run(runs[-1])
        write(out, results_of(list(SEARCHES.values()), runs))
    return runs


def run_quick(wanted: list[Plan], minutes: float, judge: Judge) -> list[Run]:
    """Run small searches, which share the remaining time."""
    started, runs = monotonic(), []
    for place, one in enumerate(wanted):
        share = (60 * minutes - (monotonic() - started)) / (len(wanted) - place)
        runs.append(run(one, max(3.0, SEARCHING * share), judge))
        show_run(runs[-1])
    return runs


def results_of(searches: list[TargetSearch], runs: list[Run]) -> dict[str, Any]:
    """Return what is written: the rows, the rows of the earlier measure, and all runs."""
    rows = [row for search in searches for row in rows_of(search, runs, by_published)]
    earlier = [row for search in searches for row in rows_of(search, runs, by_first_epoch)]
    return {"rows": rows, "first_epoch": earlier, "runs": runs}


def show_run(found: Run) -> None:
    """Print a run with the last step of its curve."""
    good = "has nothing to publish"
    if found["curve"]:
        last = found["curve"][-1]
        good = f"would publish {last['mean']:.2%} ({last['low']:.2%} to {last['high']:.2%}) from {last['at']:.1f} s on"
    print(f"  {found['work']}, seed {found['seed']}, {found['side']}: {good},", end=" ")
    print(
        f"{found['trials']} trials in {found['seconds']:.0f} s ({found['how']}, {found['threads']} threads)", flush=True
    )


def _seconds(row: dict[str, Any], side: str) -> str:
    if row["seconds"][side] is None:
        return "missed" if row["missed"][side] else "not run"
    return f"{row['seconds'][side]:.1f} s"


def show(row: dict[str, Any]) -> None:
    """Print a row."""
    times = [f"{side} {_seconds(row, side)}" for side in SIDES]
    ratios = [
        f"{name} {'none' if row[name] is None else format(row[name], '.1f')}" for name in ("ratio_b", "ratio_best")
    ]
    print(f"{row['work']:24} {'   '.join(times)}   {'   '.join(ratios)}   n = {row['n']}", flush=True)


def main() -> None:
    """Do the requested runs, and print a table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="search fewer images for lower targets; writes no results")
    parser.add_argument("--minutes", type=float, default=QUICK_MINUTES, help="with --quick: time for all runs")
    parser.add_argument("--search", choices=list(SEARCHES), help="run this search only")
    parser.add_argument("--side", choices=SIDES, help="run this side only")
    parser.add_argument("--seeds", type=int, help="runs of each search and side; by default the search's own number")
    parser.add_argument(
        "--limit", type=float, default=inf, help="seconds of a search; by default 600 of Chiffre and 1,800 of a loop"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "study.json", help="file of results, to which new ones are added"
    )
    options = parser.parse_args()
    searches = [SEARCHES[options.search]] if options.search else list(SEARCHES.values())
    if options.quick:
        searches = [search.quickly() for search in searches]
    wanted = list(plan(searches, [options.side] if options.side else list(SIDES), options.seeds))
    with Judge() as judge:
        if options.quick:
            runs = run_quick(wanted, options.minutes, judge)
        else:
            runs = run_full(wanted, options.limit, options.out, judge)
    results = results_of(searches, runs)
    for row in results["rows"]:
        show(row)
    print(json.dumps({"rows": results["rows"], "first_epoch": results["first_epoch"]}))
