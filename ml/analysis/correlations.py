"""Correlations between parameters, loss, accuracy and time."""

from functools import cache
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np

from ml.analysis.findings import Correlations, Gap, Matrix
from ml.analysis.observations import Observations

LEAST = 3  # trials; two always lie on a line
MOST_EXACT = 7  # trials; up to here all orders are tried, 5,040 at most


def correlations(observed: Observations) -> Correlations:
    """Return Pearson's and Spearman's coefficients of all pairs of variables, with p-values of independent draws."""
    variables = observed.variables
    names = list(variables)
    kinds: dict[str, Matrix] = {
        kind: [[None] * len(names) for _ in names] for kind in ("pearson", "pearson_p", "spearman", "spearman_p")
    }
    n, effective = ([[0] * len(names) for _ in names] for _ in range(2))
    reasons, dependence = [], observed.dependence
    for i, one in enumerate(names):
        for j, other in enumerate(names[: i + 1]):
            both = np.isfinite(variables[one]) & np.isfinite(variables[other])
            n[i][j] = n[j][i] = int(both.sum())
            x, y = _observations(observed, one, other, both)
            effective[i][j] = effective[j][i] = len(x)
            if (reason := _why_not(one, x, other, y, "trials" if len(x) == n[i][j] else "packs")) is not None:
                reasons.append(Gap(one=other, other=one, reason=reason))
                continue
            for kind, value in _coefficients(x, y).items():
                if dependence is None or not kind.endswith("_p"):
                    kinds[kind][i][j] = kinds[kind][j][i] = value
    counts = {"n": n, "n_effective": effective}
    return Correlations(variables=names, reasons=reasons, p_reason=dependence, **counts, **kinds)


def _observations(observed: Observations, one: str, other: str, both: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of two variables, float64 [observations] each: of trials, or means of packs.

    Args:
        observed: the trials.
        one: a variable.
        other: another variable.
        both: bool [trials], true if a trial has both.
    """
    x, y = observed.variables[one][both], observed.variables[other][both]
    if not (observed.per_pack(one) or observed.per_pack(other)):
        return x, y
    packs = observed.packs[both]
    members = [packs == pack for pack in np.unique(packs)]
    return np.array([x[own].mean() for own in members]), np.array([y[own].mean() for own in members])


def _coefficients(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    from scipy import stats  # only here, as it loads for half a second, and most plots need no coefficients

    pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
    return {
        "pearson": float(pearson.statistic),
        "pearson_p": float(pearson.pvalue),
        "spearman": float(spearman.statistic),
        "spearman_p": _spearman_p(x, y, spearman),
    }


def _spearman_p(x: np.ndarray, y: np.ndarray, found: Any) -> float:
    """Return the two-sided p-value of Spearman's rho.

    Few trials are tested exactly: the share of all orders that agree at least as much. Others use Student's t, with
    2 / n! as the least value. The t approximation would call three trials in perfect order impossible by chance, but
    that happens one time in three.
    """
    if len(x) > MOST_EXACT:
        return max(float(found.pvalue), 2 / factorial(len(x)))
    from scipy.stats import rankdata

    one, other = rankdata(x), rankdata(y)
    products = np.abs((other[_orders(len(x))] - other.mean()) @ (one - one.mean()))
    return float((products >= products[0] - 1e-9).mean())


@cache
def _orders(n: int) -> np.ndarray:
    """Return every order of range(n), [n!, n]; the first is the identity."""
    return np.array(list(permutations(range(n))))


def _why_not(one: str, x: np.ndarray, other: str, y: np.ndarray, of: str) -> str | None:
    """Return why two variables have no coefficient; None if they have one."""
    if len(x) < LEAST:
        return f"only {len(x)} {of} have both; at least {LEAST} are needed"
    constant = [name for name, values in ((other, y), (one, x)) if _is_constant(values)]
    return f"{constant[0]} has one value in all {len(x)} {of}" if constant else None


def _is_constant(values: np.ndarray) -> bool:
    """Return whether values differ only by rounding; a correlation would then measure rounding."""
    return bool(np.ptp(values) <= 1e-13 * np.abs(values).max())
