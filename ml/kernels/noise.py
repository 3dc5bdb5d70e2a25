"""Random numbers without a state: each is a hash of a seed, a step, a row and a place.

A generator with a state would have to be saved, and its numbers for a lane would depend on the other lanes. Here any
number can be computed again, alone. The hash is `lowbias32` of Chris Wellons
(https://nullprogram.com/blog/2018/07/31/). It has 32 bits, and a CPU computes several at a time: 50,000 numbers took
7 µs.
"""

import numpy as np
from torch import Tensor

from ml.kernels.compiling import compiled

FIRST, SECOND = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
GOLDEN = np.uint32(0x9E3779B9)  # 2³² divided by the golden ratio: spreads neighbouring numbers
WORD = 2**32
HIGHEST = -(2**31)  # the highest bit of an int32


@compiled
def _mixed(x):
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * FIRST)
    x = np.uint32(x ^ (x >> np.uint32(15)))
    x = np.uint32(x * SECOND)
    return np.uint32(x ^ (x >> np.uint32(16)))


@compiled
def _fill_keys(seeds, steps, keys):
    for k in range(keys.shape[0]):
        own = _mixed(np.uint32(_mixed(seeds[k]) + np.uint32(steps[k])))
        for b in range(keys.shape[1]):
            keys[k, b] = _mixed(np.uint32(own + np.uint32(b) * GOLDEN))


@compiled
def _fill_places(numbers, places):
    for j in range(numbers.shape[0]):
        places[j] = _mixed(np.uint32(numbers[j] + GOLDEN))


@compiled
def _fill_uniform(keys, places, out):
    unit = np.float32(2.0**-31)
    for b in range(out.shape[0]):
        key, row = keys[b], out[b]
        for j in range(out.shape[1]):
            row[j] = np.float32(np.int32(_mixed(np.uint32(places[j] ^ key)))) * unit


@compiled
def _fill_kept(keys, places, least, scales, out):
    for k in range(out.shape[0]):
        bound, scale, nothing = least[k], out.dtype.type(scales[k]), out.dtype.type(0)
        for b in range(out.shape[1]):
            key, row = keys[k, b], out[k, b]
            for j in range(out.shape[2]):
                row[j] = scale if _mixed(np.uint32(places[k, j] ^ key)) >= bound else nothing


def keys_of(seeds: np.ndarray, steps: np.ndarray, rows: int) -> np.ndarray:
    """Return a key for each row of a step of each lane, uint32 [lanes, rows]; seeds uint32 and steps int64 [lanes]."""
    keys = np.empty((len(seeds), rows), np.uint32)
    _fill_keys(seeds, steps, keys)
    return keys


def places_of(numbers: np.ndarray) -> np.ndarray:
    """Return places for `uniform` and `kept` from the places' numbers, uint32 in the same shape."""
    places = np.empty(numbers.size, np.uint32)
    _fill_places(np.ascontiguousarray(numbers, np.uint32).reshape(-1), places)
    return places.reshape(numbers.shape)


def uniform(keys: np.ndarray, places: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return numbers between -1 and 1, uniformly distributed, float32 [rows, places]; keys [rows], places [places]."""
    filled = np.empty((len(keys), len(places)), np.float32) if out is None else out
    _fill_uniform(keys, places, filled)
    return filled


def kept(keys: np.ndarray, places: np.ndarray, shares: np.ndarray, out: np.ndarray) -> None:
    """Fill a dropout mask: 0 for a lane's share of its places, 1 / (1 - share) for the others.

    Args:
        keys: uint32 [lanes, rows].
        places: uint32 [lanes, places].
        shares: of the places that are dropped, [lanes].
        out: the mask, [lanes, rows, places].
    """
    least = np.round(shares * WORD).astype(np.uint64).clip(max=WORD - 1).astype(np.uint32)
    _fill_kept(keys, places, least, 1 / (1 - shares), out)


def mixed(x: Tensor) -> Tensor:
    """Return the hash of each number of x, int32 with the bits of uint32, on any device."""
    for shift, factor in ((16, FIRST), (15, SECOND)):
        x = (x ^ _shifted(x, shift)) * int(factor.astype(np.int32))
    return x ^ _shifted(x, 16)


def _shifted(x: Tensor, by: int) -> Tensor:
    """Return x shifted to the right, filled with zeros as for an unsigned number."""
    shifted: Tensor = (x >> by) & (2 ** (32 - by) - 1)
    return shifted
