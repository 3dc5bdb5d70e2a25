"""Independent random streams from one seed.

NumPy guarantees SeedSequence and RandomState never to change (NEP 19), so a seed gives the same split, order and
initial weights on every version.
"""

from enum import IntEnum

import numpy as np


class SeedPurpose(IntEnum):
    """What a derived seed is for; the numbers are part of every recorded result and never change."""

    TEST = 1
    CUT = 2
    INIT = 3
    STREAM = 4
    SAMPLER = 5
    NOVELTY = 6
    AUGMENTATION = 7
    DROPOUT = 8
    KEYS = 9
    RUN_OFF = 20


def derive(seed: int, purpose: SeedPurpose, index: int = 0) -> int:
    """A 32-bit seed, independent of that of any other (seed, purpose, index)."""
    return int(np.random.SeedSequence([seed, purpose, index]).generate_state(1)[0])


def permutation(n: int, seed: int) -> np.ndarray:
    """A random order of range(n), int64 [n]."""
    return np.random.RandomState(seed).permutation(n)
