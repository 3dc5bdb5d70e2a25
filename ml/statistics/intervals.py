"""Confidence intervals of shares."""

from math import sqrt
from statistics import NormalDist


def wilson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval, within 0..1, of the share of `hits` among `n` independent cases.

    Wilson's score interval: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference (1927).
    Unlike the normal approximation it is accurate near 0 and 1, and accuracies are near 1.

    Raises:
        ValueError: if `n` is not positive or `hits` is not in 0..n.
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"{hits} of {n} is not a share; give 0 to n hits and a positive n")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = hits / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
