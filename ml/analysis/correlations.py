"""Correlations: how parameters, loss, accuracy and time move together."""

import numpy as np
from scipy import stats

from ml.analysis.findings import Correlations, Gap, Matrix
from ml.analysis.observations import Observations

LEAST = 3  # trials: two lie on a line whatever they are


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
        "spearman_p": float(spearman.pvalue),
    }


def _why_not(one: str, x: np.ndarray, other: str, y: np.ndarray) -> str | None:
    """Why two variables have no coefficient, None where they have one."""
    if len(x) < LEAST:
        return f"{len(x)} trials have both; it takes {LEAST}"
    constant = [name for name, values in ((other, y), (one, x)) if _is_constant(values)]
    return f"{constant[0]} has one value in all {len(x)} trials" if constant else None


def _is_constant(values: np.ndarray) -> bool:
    """Whether values differ by no more than rounding: then what they vary with is rounding too."""
    return bool(np.ptp(values) <= 1e-13 * np.abs(values).max())
