"""Saliency without gradients: how much the label's probability falls if a pixel is covered.

Occlusion after Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014), section 4.2.
"""

from collections.abc import Iterator
from itertools import product
from math import ceil

import numpy as np

SIDE = 28  # pixels; patches grow in proportion for larger images, so that there are never more than 256
STRIDE = 2  # pixels from one patch to the next
STRIDES = 3  # strides that a patch is wide: about two strokes of a pen; each pixel lies under nine patches
BYTES = 1 << 22  # of copies at once


def covered(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yield batches of copies of an image, float32 [channels, height, width], each with one patch covered by black."""
    patches, size = _patches(image.shape), max(1, BYTES // image.nbytes)
    for first in range(0, len(patches), size):
        covering = patches[first : first + size]
        copies = np.repeat(image[None], len(covering), axis=0)
        for copy, (rows, columns) in zip(copies, covering, strict=True):
            copy[:, rows, columns] = 0
        yield copies


def saliency(shape: tuple[int, ...], whole: float, probabilities: np.ndarray) -> list[list[float]]:
    """Return how far the label's probability falls if a pixel is covered, [height][width].

    A pixel's value is the mean over the patches that cover it. It is negative if covering the pixel makes the label
    more probable.

    Args:
        shape: of the image, [channels, height, width].
        whole: the label's probability for the image itself.
        probabilities: the label's probabilities for the copies that `covered` yields, in their order.
    """
    falls, counts = np.zeros(shape[-2:]), np.zeros(shape[-2:])
    for probability, (rows, columns) in zip(probabilities, _patches(shape), strict=True):
        falls[rows, columns] += whole - probability
        counts[rows, columns] += 1
    found: list[list[float]] = np.round(falls / counts, 4).tolist()
    return found


def _patches(shape: tuple[int, ...]) -> list[tuple[slice, slice]]:
    """Return the patches as slices; they reach over the edges, so that equally many patches cover each pixel."""
    height, width = shape[-2:]
    return list(product(_spans(height), _spans(width)))


def _spans(side: int) -> list[slice]:
    """Return the patches along one side."""
    stride = max(STRIDE, ceil(STRIDE * side / SIDE))
    patch = STRIDES * stride
    return [slice(max(first, 0), first + patch) for first in range(stride - patch, side, stride)]
