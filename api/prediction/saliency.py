"""Which pixels an answer rests on, without gradients: by how much its probability falls where they are covered.

Occlusion after Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014), section 4.2.
"""

from collections.abc import Iterator
from itertools import product
from math import ceil

import numpy as np

SIDE = 28  # pixels; of a larger image the patches are larger in proportion, so that there are never more than 256
STRIDE = 2  # pixels from one patch to the next
STRIDES = 3  # strides that a patch is wide: about two strokes of a pen; each pixel lies under nine patches
BYTES = 1 << 22  # of copies at once


def covered(image: np.ndarray) -> Iterator[np.ndarray]:
    """The image, float32 [channels, height, width], once for every patch that is covered by black, in batches."""
    patches, size = _patches(image.shape), max(1, BYTES // image.nbytes)
    for first in range(0, len(patches), size):
        part = patches[first : first + size]
        copies = np.repeat(image[None], len(part), axis=0)
        for copy, (rows, columns) in zip(copies, part, strict=True):
            copy[:, rows, columns] = 0
        yield copies


def saliency(shape: tuple[int, ...], whole: float, parts: np.ndarray) -> list[list[float]]:
    """How far the label's probability falls from `whole` where a pixel is covered, [height][width].

    `parts` are the label's probabilities for `covered`; a pixel's value is the mean over the patches that cover it,
    negative where covering it makes the label more probable.
    """
    falls, counts = np.zeros(shape[-2:]), np.zeros(shape[-2:])
    for part, (rows, columns) in zip(parts, _patches(shape), strict=True):
        falls[rows, columns] += whole - part
        counts[rows, columns] += 1
    found: list[list[float]] = np.round(falls / counts, 4).tolist()
    return found


def _patches(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Where the patches lie; those at the edge reach over it, so that each pixel lies under as many as any other."""
    height, width = shape[-2:]
    return list(product(_spans(height), _spans(width)))


def _spans(side: int) -> list[slice]:
    """Where patches lie along a side."""
    stride = max(STRIDE, ceil(STRIDE * side / SIDE))
    patch = STRIDES * stride
    return [slice(max(first, 0), first + patch) for first in range(stride - patch, side, stride)]
