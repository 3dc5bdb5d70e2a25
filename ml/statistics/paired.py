"""Paired tests of classifiers that were validated on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from statistics import fmean, variance


@dataclass(frozen=True)
class Mcnemar:
    """McNemar's test of two classifiers on the same images; the null hypothesis is equal accuracy."""

    only_first: int  # images that only the first classifier got right
    only_second: int
    exact: float  # two-sided binomial p-value
    mid: float  # mid-p value: less conservative than the exact one, and rarely too small


def mcnemar(only_first: int, only_second: int) -> Mcnemar:
    """Return McNemar's test, computed exactly.

    Q. McNemar (1947). The mid-p variant is recommended by M. W. Fagerland, S. Lydersen, P. Laake: The McNemar test for
    binary matched-pairs data (2013), equation 5.

    Raises:
        ValueError: if a count is negative.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError("a count is negative; give 0 or more")
    n, low = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return Mcnemar(0, 0, exact=1.0, mid=1.0)
    from scipy import special  # only here, so that trainers and plots start without it

    exact = min(1.0, 2 * float(special.bdtr(low, n, 0.5)))
    # Mid-p subtracts half the probability of results as uneven as this: one result for an even split, else two.
    same = comb(n, low) / 2**n * (0.5 if only_first == only_second else 1.0)
    return Mcnemar(only_first, only_second, exact, exact - same)


@dataclass(frozen=True)
class Resampled:
    """The mean over several splits of the same images, its confidence interval, and the p-value of a true mean of 0."""

    mean: float
    error: float  # standard error of the mean
    low: float
    high: float
    t: float | None  # None if the values do not vary
    p: float


def share_variance(right: int, images: int) -> float:
    """Return the sampling variance of a share of images; it is above 0 even if all or none are right.

    A. Agresti, B. A. Coull: Approximate is better than "exact" for interval estimation of binomial proportions (1998).
    """
    share = (right + 2) / (images + 4)
    return share * (1 - share) / (images + 4)


def difference_variance(only_first: int, only_second: int, images: int) -> float:
    """Return the sampling variance of the difference of two shares of the same images.

    D. G. Bonett, R. M. Price: Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data (2012).
    """
    share_first, share_second = ((only + 1) / (images + 2) for only in (only_first, only_second))
    return (share_first + share_second - (share_first - share_second) ** 2) / (images + 2)


def corrected_t(
    values: Sequence[float], train: int, validation: int, confidence: float = 0.95, least: float = 0.0
) -> Resampled:
    """Return the corrected resampled t-test of values from several splits.

    The splits share most of their images, so the plain variance of the mean is too small. It is multiplied by
    1/n + validation/train instead of 1/n: C. Nadeau, Y. Bengio, Inference for the Generalization Error (2003),
    section 3.

    Args:
        values: one value per split.
        train: training images of a split.
        validation: validation images of a split.
        confidence: of the interval, 0..1.
        least: lower limit of the variance; the variance of few values may be near 0 by chance.

    Raises:
        ValueError: if there are fewer than two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError("one split has no variance; give two or more")
    mean = fmean(values)
    spread = sqrt((1 / n + validation / train) * max(variance(values), least))
    if spread == 0:
        return Resampled(mean, 0.0, mean, mean, None, 1.0 if mean == 0 else 0.0)
    from scipy import special

    half = float(special.stdtrit(n - 1, (1 + confidence) / 2)) * spread
    t = mean / spread
    return Resampled(mean, spread, mean - half, mean + half, t, 2 * float(special.stdtr(n - 1, -abs(t))))


def holm(ps: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests, in their order.

    S. Holm: A simple sequentially rejective multiple test procedure (1979).
    """
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted
