"""Correlations: how parameters, loss, accuracy and time move together."""

from functools import cache
from itertools import permutations
from math import factorial
from typing import Any

import numpy as np
from scipy import stats

from ml.analysis.findings import Correlations, Gap, Matrix
from ml.analysis.observations import Observations

LEAST = 3  # trials: two lie on a line whatever they are
MOST_EXACT = 7  # trials of which all orders are tried: 5,040


def correlations(observed: Observations) -> Correlations:
    """Pearson's and Spearman's coefficients of every two variables, and the probability of each by chance."""
    variables = observed.variables
    names = list(variables)
    kinds: dict[str, Matrix] = {
        kind: [[None] * len(names) for _ in names] for kind in ("pearson", "pearson_p", "spearman", "spearman_p")
    }
    n = [[0] * len(names) for _ in names]
    reasons = []
    for i, one in enumerate(names):
        for j, other in enumerate(names[: i + 1]):
            both = np.isfinite(variables[one]) & np.isfinite(variables[other])
            n[i][j] = n[j][i] = int(both.sum())
            x, y = variables[one][both], variables[other][both]
            if (reason := _why_not(one, x, other, y)) is not None:
                reasons.append(Gap(one=other, other=one, reason=reason))
                continue
            for kind, value in _coefficients(x, y).items():
                kinds[kind][i][j] = kinds[kind][j][i] = value
    return Correlations(variables=names, n=n, reasons=reasons, **kinds)


def _coefficients(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
    return {
        "pearson": float(pearson.statistic),
        "pearson_p": float(pearson.pvalue),
        "spearman": float(spearman.statistic),
        "spearman_p": _spearman_p(x, y, spearman),
    }


def _spearman_p(x: np.ndarray, y: np.ndarray, found: Any) -> float:
    """Of few trials the share of all orders that agree as much; else by Student's t, and never less than of one order.

    The t approximation calls three trials in perfect order impossible by chance, where it is one time in three.
    """
    if len(x) > MOST_EXACT:
        return max(float(found.pvalue), 2 / factorial(len(x)))
    one, other = stats.rankdata(x), stats.rankdata(y)
    products = np.abs((other[_orders(len(x))] - other.mean()) @ (one - one.mean()))
    return float((products >= products[0] - 1e-9).mean())


@cache
def _orders(n: int) -> np.ndarray:
    """Every order of n things, [n!, n]; as they are first."""
    return np.array(list(permutations(range(n))))


def _why_not(one: str, x: np.ndarray, other: str, y: np.ndarray) -> str | None:
    """Why two variables have no coefficient, None where they have one."""
    if len(x) < LEAST:
        return f"{len(x)} trials have both; it takes {LEAST}"
    constant = [name for name, values in ((other, y), (one, x)) if _is_constant(values)]
    return f"{constant[0]} has one value in all {len(x)} trials" if constant else None


def _is_constant(values: np.ndarray) -> bool:
    """Whether values differ by no more than rounding: then what they vary with is rounding too."""
    return bool(np.ptp(values) <= 1e-13 * np.abs(values).max())
