"""The rows of the study: the times of the sides to each target, and their ratios."""

from collections.abc import Callable
from math import inf, isfinite
from statistics import median
from typing import Any

from benchmarks.study.curve import first_epoch, reached
from benchmarks.study.searches import TargetSearch

Run = dict[str, Any]  # an outcome with its search, seed, side and curve
BASELINES = {"b": "ratio_b", "best": "ratio_best"}
SIDES = ("product", *BASELINES)


def by_published(run: Run, target: float) -> float | None:
    """Return the time until what a run would publish is at a target for good."""
    return reached(run["curve"], target)


def by_first_epoch(run: Run, target: float) -> float | None:
    """Return the time of the first measurement at a target."""
    return first_epoch(run["incumbents"], target)


def rows_of(
    search: TargetSearch, runs: list[Run], time_of: Callable[[Run, float], float | None]
) -> list[dict[str, Any]]:
    """Return the row of each target, from the seeds that the product and a baseline have run."""
    found = {side: {r["seed"]: r for r in runs if r["work"] == search.name and r["side"] == side} for side in SIDES}
    return [row for target in search.targets if (row := _row(search.work(target), target, found, time_of))]


def _row(
    work: str, target: float, found: dict[str, dict[int, Run]], time_of: Callable[[Run, float], float | None]
) -> dict[str, Any] | None:
    seeds = sorted(seed for seed in found["product"] if any(seed in found[side] for side in BASELINES))
    if not seeds:
        return None
    row: dict[str, Any] = {"work": work, "n": len(seeds), "seeds": seeds}
    times = {side: {seed: time_of(run, target) for seed, run in found[side].items()} for side in SIDES}
    row["missed"] = {side: sum(of[seed] is None for seed in seeds if seed in of) for side, of in times.items()}
    row["seconds"] = {side: _median([of[seed] for seed in seeds if seed in of]) for side, of in times.items()}
    row["at_least"] = {}
    for side, ratio in BASELINES.items():
        both = [seed for seed in seeds if seed in found[side]]
        ratios = [_ratio(times["product"][s], times[side][s], found[side][s]["limit"]) for s in both]
        middle = median(ratios) if ratios else 0.0
        row[ratio] = middle or None  # no ratio if most runs of the product missed
        row["at_least"][side] = any(times[side][seed] is None for seed in both)
    return row


def _ratio(product: float | None, baseline: float | None, limit: float) -> float:
    """Return a baseline's time by the product's; one that missed counts with its limit, 0 is a miss of the product."""
    return 0.0 if product is None else (limit if baseline is None else baseline) / product


def _median(times: list[float | None]) -> float | None:
    """Return the median time; None if most runs missed, or there is none."""
    middle = median([inf if time is None else time for time in times]) if times else inf
    return middle if isfinite(middle) else None
