"""The curve of a search: the accuracy of what it would publish, as a step function of time."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student_t


@dataclass(frozen=True)
class Step:
    """A new incumbent: its mean accuracy over fresh cuts, with a 95 % interval (Student's t)."""

    at: float  # seconds
    mean: float
    low: float
    high: float


def curve_of(incumbents: Sequence[dict[str, Any]], judged: Sequence[Sequence[float]]) -> list[dict[str, float]]:
    """Return the steps of a curve as JSON, from incumbents and their accuracies on each cut."""
    steps = []
    for one, accuracies in zip(incumbents, judged, strict=True):
        half = float(student_t.ppf(0.975, len(accuracies) - 1)) * stdev(accuracies) / sqrt(len(accuracies))
        middle = mean(accuracies)
        steps.append(asdict(Step(one["at"], middle, middle - half, middle + half)))
    return steps


def reached(curve: Sequence[dict[str, float]], target: float) -> float | None:
    """Return the seconds after which a curve is at a target for good; None if it is not at its end."""
    found = None
    for step in curve:
        if step["mean"] < target:
            found = None
        elif found is None:
            found = step["at"]
    return found


def first_epoch(incumbents: Sequence[dict[str, Any]], target: float) -> float | None:
    """Return the seconds until any measurement first reached a target: the measure of earlier releases."""
    return next((one["at"] for one in incumbents if one["value"] >= target), None)
