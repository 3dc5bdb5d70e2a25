"""Independent random streams from one seed.

NumPy guarantees that SeedSequence and RandomState never change (NEP 19). A seed therefore gives the same split, order
and initial weights on every version.
"""

from enum import IntEnum

import numpy as np


class SeedPurpose(IntEnum):
    """The uses of a derived seed; the numbers are part of every recorded result and never change."""

    TEST = 1
    SPLIT = 2
    INIT = 3
    STREAM = 4
    SAMPLER = 5
    NOVELTY = 6
    AUGMENTATION = 7
    DROPOUT = 8
    KEYS = 9
    RUN_OFF = 20


def derive(seed: int, purpose: SeedPurpose, index: int = 0) -> int:
    """Return a 32-bit seed that is independent of the seed of any other (seed, purpose, index)."""
    return int(np.random.SeedSequence([seed, purpose, index]).generate_state(1)[0])


def permutation(n: int, seed: int) -> np.ndarray:
    """Return a random order of range(n), int64 [n]."""
    return np.random.RandomState(seed).permutation(n)
