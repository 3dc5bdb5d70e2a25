"""The time of a search to a given accuracy: Chiffre, compared with Optuna around a plain loop."""

import argparse
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from math import inf, isfinite
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

from benchmarks.results import RESULTS, read, taken, write
from benchmarks.study.searches import SEARCHES, Outcome, TargetSearch
from benchmarks.study.sides import baseline, product_process, product_service

Side = Callable[[TargetSearch, int], Outcome]
Run = dict[str, Any]  # an outcome with its search, seed and side

SIDES: dict[str, Side] = {"product": product_service, "baseline": baseline}
QUICK_SIDES: dict[str, Side] = {"product": product_process, "baseline": baseline}
QUICK_SECONDS = 50  # for all runs
START_SECONDS = 1.5  # for a process to start and load its images
SEEDS = 3


def run(side: Side, search: TargetSearch, seed: int) -> Outcome:
    """Run one side in a separate process, because threads and floating-point modes belong to a process."""
    context = get_context("forkserver")
    context.set_forkserver_preload(
        ["benchmarks.study.sides"]
    )  # imports torch only once; torch must not compute before a fork
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(side, search, seed).result()


def search_row(search: TargetSearch, runs: list[Run]) -> dict[str, Any] | None:
    """Return the results of a search, or None until both sides have run on the same seed."""
    by_side = {name: {r["seed"]: r for r in runs if r["work"] == search.work and r["side"] == name} for name in SIDES}
    seeds = sorted(set.intersection(*(set(found) for found in by_side.values())))
    if not seeds:
        return None
    seconds = {name: median(found[seed]["seconds"] for seed in seeds) for name, found in by_side.items()}
    missed = {name: sum(not found[seed]["reached"] for seed in seeds) for name, found in by_side.items()}
    # If most runs of Chiffre missed the target, there is no ratio. A baseline that missed counts with its whole time.
    ratio = None if 2 * missed["product"] > len(seeds) else seconds["baseline"] / seconds["product"]
    return {
        "work": search.work,
        "ratio_core": None,  # a ratio of steps; the row has the same keys as a row of `lanes`
        "ratio_b": ratio,
        "roofline": None,
        "at_least": missed["baseline"] > 0,
        "seeds": seeds,
        "seconds": seconds,
        "missed": missed,
        "how": {name: found[seeds[0]]["how"] for name, found in by_side.items()},
    }


def show(found: dict[str, Any]) -> None:
    """Print a row."""
    bound = "≥ " if found["at_least"] else ""
    ratio = "missed" if found["ratio_b"] is None else f"{bound}{found['ratio_b']:.1f} ×"
    product, plain = (found["seconds"][name] for name in SIDES)
    times = f"product {product:8.1f} s   baseline {bound}{plain:8.1f} s"
    print(f"{found['work']:20} {times}   {ratio}   n = {len(found['seeds'])}; {found['how']['product']}", flush=True)


def plan(models: list[str], sides: list[str], seeds: int) -> Iterator[tuple[str, int, str]]:
    """Return all runs; the sides take turns."""
    return ((model, seed, side) for seed in range(seeds) for model in models for side in sides)


def run_full(wanted: list[tuple[str, int, str]], out: Path) -> list[Run]:
    """Do the runs that the results lack, and add each when it ends."""
    results = read(out)
    runs: list[Run] = results.get("runs", [])
    for model, seed, side in wanted:
        search = SEARCHES[model]
        if any((r["work"], r["seed"], r["side"]) == (search.work, seed, side) for r in runs):
            continue
        outcome = run(SIDES[side], search, seed)
        runs.append({"work": search.work, "seed": seed, "side": side, **asdict(outcome), **taken()})
        show_run(runs[-1])
        write(out, {"runs": runs})
    return runs


def run_quick(wanted: list[tuple[str, int, str]]) -> list[Run]:
    """Run small searches, which share the remaining time."""
    started, runs = monotonic(), []
    for place, (model, seed, side) in enumerate(wanted):
        share = (QUICK_SECONDS - (monotonic() - started)) / (len(wanted) - place)
        search = replace(SEARCHES[model].quick(), seconds=max(1.0, share - START_SECONDS))
        outcome = run(QUICK_SIDES[side], search, seed)
        runs.append({"work": search.work, "seed": seed, "side": side, **asdict(outcome)})
        show_run(runs[-1])
    return runs


def run_known(models: list[str], seeds: int) -> None:
    """Print the time to each target with known parameters, without a search."""
    rows = []
    for model in models:
        search = SEARCHES[model].known()
        outcomes = [run(product_process, search, seed) for seed in range(seeds)]
        for seed, outcome in enumerate(outcomes):
            show_run({"work": search.work, "seed": seed, "side": "product", **asdict(outcome)})
        seconds = median(outcome.seconds if outcome.reached else inf for outcome in outcomes)
        rows.append({"work": search.work, "seconds": seconds if isfinite(seconds) else None})
    print(json.dumps({"rows": rows}))


def show_run(found: Run) -> None:
    """Print the result of a run."""
    how = f"reached {found['best']:.2%}" if found["reached"] else f"missed with {found['best']:.2%}"
    print(f"  {found['work']}, seed {found['seed']}, {found['side']}: {how} after {found['seconds']:.1f} s", end="")
    print(f" and {found['trials']} trials ({found['how']}, {found['threads']} threads)", flush=True)


def main() -> None:
    """Do the requested runs, and print a table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="search to 95 %% on 5,000 images within a minute; writes no results"
    )
    parser.add_argument("--model", choices=list(SEARCHES), help="search for this network only")
    parser.add_argument("--side", choices=list(SIDES), help="run this side only")
    parser.add_argument(
        "--seeds", type=int, help=f"runs of each search and side; by default {SEEDS}, or 1 with --quick"
    )
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "study.json", help="file of results, to which new ones are added"
    )
    parser.add_argument("--known", action="store_true", help="time one trial with good parameters, without a search")
    options = parser.parse_args()
    models = [options.model] if options.model else list(SEARCHES)
    sides = [options.side] if options.side else list(SIDES)
    if options.known:
        run_known(models, options.seeds or SEEDS)
        return
    wanted = list(plan(models, sides, options.seeds or (1 if options.quick else SEEDS)))
    if options.quick:
        print("Quick: ml.tuning.tune in one process on one thread, without the service, which trains on all images.")
    runs = run_quick(wanted) if options.quick else run_full(wanted, options.out)
    searches = [SEARCHES[model].quick() if options.quick else SEARCHES[model] for model in models]
    rows = [found for search in searches if (found := search_row(search, runs))]
    for found in rows:
        show(found)
    print(json.dumps({"rows": rows}))
