"""Groups of trials with similar values of a parameter."""

from dataclasses import dataclass

import numpy as np

from ml.analysis.findings import Effect, Group
from ml.analysis.observations import Column, Observations

MOST = 6  # groups that a parameter is shown in


@dataclass(frozen=True)
class TrialGroups:
    """The group of each trial."""

    labels: tuple[str, ...]
    of_trial: np.ndarray  # int64 [trials]; -1 for a trial without a value


def grouped(column: Column, most: int) -> TrialGroups:
    """Group trials by value if there are at most `most` values, else into at most `most` ranges of similar size.

    Trials with the same value stay together, so there may be fewer ranges.
    """
    distinct = column.distinct
    if len(distinct) <= most or not column.numeric:
        place = {value: index for index, value in enumerate(distinct)}
        of_trial = np.array([-1 if value is None else place[value] for value in column.values], np.int64)
        return TrialGroups(tuple(map(_text, distinct)), of_trial)
    numbers = column.numbers()
    known = np.isfinite(numbers)
    inner = np.unique(np.quantile(numbers[known], np.arange(1, most) / most, method="inverted_cdf"))
    inner = inner[inner < distinct[-1]] if inner[0] < distinct[-1] else np.array(distinct[-2:-1])
    found = np.where(known, np.searchsorted(inner, numbers), -1)  # an edge belongs to the range below it
    used = np.unique(found[known])
    labels = tuple(_range(numbers[found == group]) for group in used)
    return TrialGroups(labels, np.where(known, np.searchsorted(used, found), -1))


def effects(observed: Observations) -> list[Effect]:
    """Return accuracy and time by the values of each parameter."""
    accuracy, seconds = observed.outcome("val_accuracy"), observed.outcome("seconds")
    return [_effect(column, accuracy, seconds) for column in observed.columns]


def _effect(column: Column, accuracy: np.ndarray, seconds: np.ndarray) -> Effect:
    groups = grouped(column, MOST)
    found = [
        _group(label, accuracy[groups.of_trial == index], seconds[groups.of_trial == index])
        for index, label in enumerate(groups.labels)
    ]
    reason = None if len(found) > 1 else f"only {len(column.distinct)} values occur in {len(column.values)} trials"
    return Effect(parameter=column.name, groups=found, reason=reason)


def _group(label: str, accuracy: np.ndarray, seconds: np.ndarray) -> Group:
    return Group(
        label=label,
        trials=len(seconds),
        val_accuracy=mean(accuracy),
        val_accuracy_sd=_deviation(accuracy),
        seconds=mean(seconds),
        seconds_sd=_deviation(seconds),
    )


def mean(values: np.ndarray) -> float | None:
    """Return the mean of the finite values; None if there are none."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _deviation(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.std(ddof=1)) if len(known) > 1 else None


def _range(numbers: np.ndarray) -> str:
    low, high = _text(float(numbers.min())), _text(float(numbers.max()))
    return low if low == high else f"{low} … {high}"


def _text(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
