"""Interactions: whether the effect of one parameter depends on another.

A correlation of one parameter with accuracy is an average over the values of all others. Where the best batch size
depends on the width, or the best learning rate on the epochs, that average may say nothing, or the opposite of what
holds for any one width. Two-way analysis of variance shows it: R. A. Fisher, Statistical Methods for Research Workers
(1925), with type II sums of squares for groups of different sizes (Ø. Langsrud, Statistics and Computing 13, 2003),
and the pairs' p-values corrected by S. Holm's method (Scandinavian Journal of Statistics 6, 1979).

Numbers are grouped in ranges. Where a sampler draws two parameters together, their values differ between the cells of
one range too, and two plain effects would look like an interaction: what remains of them within ranges is taken off
first. The p-values take trials for independent draws, which those of a sampler that learns are not.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

from ml.analysis.findings import Cell, Interaction
from ml.analysis.groups import TrialGroups, grouped, mean
from ml.analysis.observations import Column, Observations
from ml.statistics.paired import holm

TESTED = ("val_accuracy", "seconds")
MOST = 4  # groups of each parameter: few, so that there are several trials in a cell


@dataclass(frozen=True)
class Test:
    """What the analysis of variance says of two parameters."""

    share_one: float
    share_other: float
    share: float
    f: float | None = None
    f_df: tuple[int, int] | None = None
    p: float | None = None
    reason: str | None = None


def interactions(observed: Observations) -> list[Interaction]:
    """Every two parameters for each outcome, those of least probability by chance first."""
    groups = {column.name: grouped(column, MOST) for column in observed.columns}
    pairs = list(combinations(observed.columns, 2))
    found: list[Interaction] = []
    for outcome in TESTED:
        values = observed.outcome(outcome)
        tested = [
            _interaction((one, groups[one.name]), (other, groups[other.name]), outcome, values) for one, other in pairs
        ]
        found += _corrected(tested)
    return sorted(found, key=lambda one: (one.p is None, one.p or 0.0, -(one.share or 0.0)))


def two_way(one: np.ndarray, other: np.ndarray, values: np.ndarray, beside: np.ndarray | None = None) -> Test | str:
    """Type II analysis of variance of values, float64 [n], by two groupings, int64 [n]; or why there is none.

    Whatever the values owe to the covariates `beside`, float64 [n, any], counts for neither.
    """
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    if len(np.unique(one)) < 2 or len(np.unique(other)) < 2:
        return "one of the two has the same value in all trials"
    if total <= len(values) * (1e-13 * np.abs(values).max()) ** 2:
        return "the outcome is the same in all trials"
    covariates = np.empty((len(values), 0)) if beside is None else beside
    a, b = _indicators(one), _indicators(other)
    cells = np.hstack([_indicators(one * (other.max() + 1) + other), covariates])
    a, b, additive = (np.hstack([*parts, covariates]) for parts in ([a], [b], [a, b]))
    residual = {name: _residual(x, values) for name, x in (("a", a), ("b", b), ("ab", additive), ("cells", cells))}
    test = Test(
        _share(residual["b"] - residual["ab"], total),
        _share(residual["a"] - residual["ab"], total),
        _share(residual["ab"] - residual["cells"], total),
    )
    rank = int(np.linalg.matrix_rank(cells))
    df = rank - int(np.linalg.matrix_rank(additive)), len(values) - rank
    if df[0] < 1:
        return replace(test, reason="too few of their combinations were tried to tell an interaction from two effects")
    if df[1] < 1 or residual["cells"] <= 1e-13 * total:
        return replace(test, reason="the trials of a combination do not differ, so that chance cannot be estimated")
    f = ((residual["ab"] - residual["cells"]) / df[0]) / (residual["cells"] / df[1])
    f = max(f, 0.0)
    return replace(test, f=f, f_df=df, p=float(stats.f.sf(f, *df)))


def within(column: Column, groups: TrialGroups) -> np.ndarray:
    """What grouping lost of a column, float64 [n, 0 or 4]: how far each trial's value is from the mean of its group.

    By ranks and by values, as an effect may follow a value or its logarithm; and each also times that mean, as it may
    be steeper at one end. Plain effects of values that are drawn together then look like an interaction about as often
    as chance alone does, which `tests/ml/analysis/test_interactions.py` holds.
    """
    if len(groups.labels) >= len(column.distinct):
        return np.empty((len(column.values), 0))
    values = column.numbers()
    found = []
    for scaled in (stats.rankdata(values, nan_policy="omit") / len(values), values / np.nanstd(values)):
        means = np.full(len(scaled), np.nan)
        for group in range(len(groups.labels)):
            means[groups.of_trial == group] = scaled[groups.of_trial == group].mean()
        found += [scaled - means, (scaled - means) * (means - np.nanmean(means))]
    return np.column_stack(found)


def _interaction(
    one: tuple[Column, TrialGroups], other: tuple[Column, TrialGroups], outcome: str, values: np.ndarray
) -> Interaction:
    rows, columns = one[1], other[1]
    known = (rows.of_trial >= 0) & (columns.of_trial >= 0) & np.isfinite(values)
    i, j, reached = rows.of_trial[known], columns.of_trial[known], values[known]
    beside = np.hstack([within(*one), within(*other)])[known]
    found = two_way(i, j, reached, beside)
    test = {name: getattr(found, name, None) for name in ("share_one", "share_other", "share", "f", "f_df", "p")}
    return Interaction(
        one=one[0].name,
        other=other[0].name,
        outcome=outcome,
        trials=len(reached),
        one_groups=list(rows.labels),
        other_groups=list(columns.labels),
        cells=[
            [_cell(reached[(i == row) & (j == column)]) for column in range(len(columns.labels))]
            for row in range(len(rows.labels))
        ],
        **test,
        p_holm=None,
        reason=found if isinstance(found, str) else found.reason,
    )


def _cell(values: np.ndarray) -> Cell:
    return Cell(trials=len(values), mean=mean(values))


def _corrected(tested: list[Interaction]) -> list[Interaction]:
    """The same, each with its p-value corrected for how many were tested."""
    with_p = [index for index, one in enumerate(tested) if one.p is not None]
    corrected = dict(zip(with_p, holm([tested[index].p or 0.0 for index in with_p]), strict=True))
    return [one.model_copy(update={"p_holm": corrected.get(index)}) for index, one in enumerate(tested)]


def _indicators(groups: np.ndarray) -> np.ndarray:
    """A column for each group that occurs, 1 where a trial belongs to it: float64 [n, groups]."""
    found: np.ndarray = groups[:, None] == np.unique(groups)
    return found.astype(np.float64)


def _residual(x: np.ndarray, y: np.ndarray) -> float:
    """The sum of squares that least squares leaves."""
    solution, *_ = np.linalg.lstsq(x, y, rcond=None)
    return float(((y - x @ solution) ** 2).sum())


def _share(squares: float, total: float) -> float:
    return min(1.0, max(0.0, squares / total))
