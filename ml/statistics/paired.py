"""Paired comparisons of classifiers that were validated on the same images."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, variance

from scipy import stats


@dataclass(frozen=True)
class Mcnemar:
    """How two classifiers differ over the same images: p of the differences, were both equally often right."""

    only_first: int  # images that the first alone got right
    only_second: int
    exact: float  # two-sided binomial p
    mid: float  # mid-p: the exact one is too careful, this one is not, and hardly ever too bold


def mcnemar(only_first: int, only_second: int) -> Mcnemar:
    """McNemar's test without an approximation.

    Q. McNemar (1947); the mid-p variant is recommended by M. W. Fagerland, S. Lydersen, P. Laake: The McNemar test for
    binary matched-pairs data (2013), equation 5. ValueError where a count is negative.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError("counts are not negative")
    n, low = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return Mcnemar(0, 0, exact=1.0, mid=1.0)
    exact = min(1.0, 2 * float(stats.binom.cdf(low, n, 0.5)))
    # Half of the chance of what is exactly as uneven is taken off; of an even split there is one, of others two.
    same = float(stats.binom.pmf(low, n, 0.5)) * (0.5 if only_first == only_second else 1.0)
    return Mcnemar(only_first, only_second, exact, exact - same)


@dataclass(frozen=True)
class Resampled:
    """The mean of values from several cuts of the same images, its interval, and p were the true mean 0."""

    mean: float
    low: float
    high: float
    t: float | None  # None where the values do not vary
    p: float


def share_variance(right: int, images: int) -> float:
    """The variance that a share of images has from the choice of images alone, not 0 where all or none are right.

    A. Agresti, B. A. Coull: Approximate is better than "exact" for interval estimation of binomial proportions (1998).
    """
    share = (right + 2) / (images + 4)
    return share * (1 - share) / (images + 4)


def difference_variance(only_first: int, only_second: int, images: int) -> float:
    """The same of the difference of two shares of the same images.

    D. G. Bonett, R. M. Price: Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data (2012).
    """
    first, second = ((only + 1) / (images + 2) for only in (only_first, only_second))
    return (first + second - (first - second) ** 2) / (images + 2)


def corrected_t(
    values: Sequence[float], train: int, validation: int, confidence: float = 0.95, least: float = 0.0
) -> Resampled:
    """The corrected resampled t-test for values, one a cut into `train` and `validation` images.

    Cuts share most of their images, so that the plain variance is too small; it is multiplied by 1/n + validation/train
    instead of 1/n. C. Nadeau, Y. Bengio: Inference for the Generalization Error (2003), section 3. Of few values the
    variance may be next to nothing by luck: it counts as no less than `least`. ValueError where there are fewer than
    two values.
    """
    n = len(values)
    if n < 2:
        raise ValueError("one cut says nothing about others; give two or more")
    mean = fmean(values)
    spread = sqrt((1 / n + validation / train) * max(variance(values), least))
    if spread == 0:
        return Resampled(mean, mean, mean, None, 1.0 if mean == 0 else 0.0)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread
    t = mean / spread
    return Resampled(mean, mean - half, mean + half, t, 2 * float(stats.t.sf(abs(t), n - 1)))


def holm(ps: Sequence[float]) -> list[float]:
    """P-values adjusted for being several, in their order.

    S. Holm: A simple sequentially rejective multiple test procedure (1979).
    """
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[i]))
        adjusted[i] = highest
    return adjusted
