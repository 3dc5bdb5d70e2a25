"""Interactions: tests of whether the effect of one parameter depends on another.

A correlation of one parameter with accuracy is an average over the values of all others. If the best batch size
depends on the width, that average may say nothing, or the opposite of what is true for each width. A two-way analysis
of variance shows such a dependence: R. A. Fisher, Statistical Methods for Research Workers (1925). It uses type II sums
of squares, as groups differ in size (Ø. Langsrud, Statistics and Computing 13, 2003). The p-values of all pairs are
corrected by S. Holm's method (Scandinavian Journal of Statistics 6, 1979).

Numbers are grouped in ranges. If a sampler draws two parameters together, their values also differ between the cells
of one range, and two separate effects would look like an interaction. So the effects within ranges are removed first.
The p-values assume independent draws. So there are none if the sampler learned, or if a pack shares a parameter.
"""

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from ml.analysis.findings import Cell, Interaction
from ml.analysis.groups import TrialGroups, grouped, mean
from ml.analysis.observations import Column, Observations
from ml.statistics.paired import holm

TESTED = ("val_accuracy", "seconds")
MOST = 4  # groups of each parameter; few, so that a cell has several trials


@dataclass(frozen=True)
class AnovaResult:
    """The analysis of variance of two parameters; the fields are those of `findings.Interaction`."""

    share_one: float
    share_other: float
    share: float
    f: float | None = None
    f_df: tuple[int, int] | None = None
    p: float | None = None
    reason: str | None = None


def interactions(observed: Observations) -> list[Interaction]:
    """Return the test of every pair of parameters for each outcome, by p-value."""
    groups = {column.name: grouped(column, MOST) for column in observed.columns}
    pairs = list(combinations(observed.columns, 2))
    found: list[Interaction] = []
    for outcome in TESTED:
        values = observed.outcome(outcome)
        tested = [
            _independent(observed, _interaction((one, groups[one.name]), (other, groups[other.name]), outcome, values))
            for one, other in pairs
        ]
        found += _corrected(tested)
    return sorted(found, key=lambda one: (one.p is None, one.p or 0.0, -(one.share or 0.0)))


def two_way(
    one: np.ndarray, other: np.ndarray, values: np.ndarray, covariates: np.ndarray | None = None
) -> AnovaResult | str:
    """Return the type II analysis of variance of values by two groupings, or why there is none.

    Args:
        one: the groups by the first parameter, int64 [n].
        other: the groups by the second parameter, int64 [n].
        values: the outcome, float64 [n].
        covariates: float64 [n, any]; variance that they explain counts for neither parameter.
    """
    total = float(((values - values.mean()) ** 2).sum()) if len(values) else 0.0
    if len(np.unique(one)) < 2 or len(np.unique(other)) < 2:
        return "one of the two parameters has the same value in all trials"
    if total <= len(values) * (1e-13 * np.abs(values).max()) ** 2:
        return "the outcome is the same in all trials"
    covariates = np.empty((len(values), 0)) if covariates is None else covariates
    a, b = _indicators(one), _indicators(other)
    cells = np.hstack([_indicators(one * (other.max() + 1) + other), covariates])
    a, b, additive = (np.hstack([*terms, covariates]) for terms in ([a], [b], [a, b]))
    residual = {name: _residual(x, values) for name, x in (("a", a), ("b", b), ("ab", additive), ("cells", cells))}
    test = AnovaResult(
        _share(residual["b"] - residual["ab"], total),
        _share(residual["a"] - residual["ab"], total),
        _share(residual["ab"] - residual["cells"], total),
    )
    rank = int(np.linalg.matrix_rank(cells))
    df = rank - int(np.linalg.matrix_rank(additive)), len(values) - rank
    if df[0] < 1:
        return replace(test, reason="too few combinations were tried to separate an interaction from two effects")
    if df[1] < 1 or residual["cells"] <= 1e-13 * total:
        return replace(test, reason="trials of the same combination do not differ, so chance cannot be estimated")
    f = ((residual["ab"] - residual["cells"]) / df[0]) / (residual["cells"] / df[1])
    f = max(f, 0.0)
    from scipy import special  # only here, as most plots need none of SciPy, which loads for half a second

    return replace(test, f=f, f_df=df, p=float(special.fdtrc(*df, f)))


def within(column: Column, groups: TrialGroups) -> np.ndarray:
    """Return covariates for what grouping loses: the distance of each value from the mean of its group.

    The distances are by rank and by value, as an effect may follow a value or its logarithm. Both are also multiplied
    by the group's mean, as an effect may be steeper at one end. With these covariates, separate effects of values that
    are drawn together look like an interaction about as often as chance does; tests/ml/analysis/test_interactions.py
    checks that.

    Returns:
        float64 [n, 4], or [n, 0] if no group has different values.
    """
    if len(groups.labels) >= len(column.distinct):
        return np.empty((len(column.values), 0))
    values = column.numbers()
    found = []
    from scipy.stats import rankdata  # only here, as above

    for scaled in (rankdata(values, nan_policy="omit") / len(values), values / np.nanstd(values)):
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
    covariates = np.hstack([within(*one), within(*other)])[known]
    found = two_way(i, j, reached, covariates)
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


def _independent(observed: Observations, found: Interaction) -> Interaction:
    """Return an interaction without its p-value if the draws are not independent."""
    shared = [name for name in (found.one, found.other) if observed.per_pack(name)]
    reason = f"all trials of a pack share {shared[0]}, so they are not independent" if shared else observed.dependence
    if found.p is None or reason is None:
        return found
    return found.model_copy(update={"p": None, "reason": reason})


def _cell(values: np.ndarray) -> Cell:
    return Cell(trials=len(values), mean=mean(values))


def _corrected(tested: list[Interaction]) -> list[Interaction]:
    """Return the interactions with p-values corrected for the number of tests."""
    with_p = [index for index, one in enumerate(tested) if one.p is not None]
    corrected = dict(zip(with_p, holm([tested[index].p or 0.0 for index in with_p]), strict=True))
    return [one.model_copy(update={"p_holm": corrected.get(index)}) for index, one in enumerate(tested)]


def _indicators(groups: np.ndarray) -> np.ndarray:
    """Return indicator columns, one per group that occurs, 1 for its trials: float64 [n, groups]."""
    found: np.ndarray = groups[:, None] == np.unique(groups)
    return found.astype(np.float64)


def _residual(x: np.ndarray, y: np.ndarray) -> float:
    """Return the residual sum of squares of a least-squares fit."""
    solution, *_ = np.linalg.lstsq(x, y, rcond=None)
    return float(((y - x @ solution) ** 2).sum())


def _share(squares: float, total: float) -> float:
    return min(1.0, max(0.0, squares / total))
