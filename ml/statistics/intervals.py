"""How far a share that was counted may be from the true one."""

from math import sqrt
from statistics import NormalDist


def wilson(hits: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval, within 0..1, that a share of `hits` among `n` independent cases speaks for.

    Wilson's score interval: E. B. Wilson, Probable Inference, the Law of Succession, and Statistical Inference (1927).
    Unlike the normal approximation it holds near 0 and 1, where accuracies lie. ValueError where n is not positive or
    hits are not among n.
    """
    if not 0 <= hits <= n or n < 1:
        raise ValueError(f"{hits} of {n} is no share")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, spread = hits / n, z * z / n
    centre = (share + spread / 2) / (1 + spread)
    half = sqrt(share * (1 - share) * spread + spread * spread / 4) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
