"""Which pixels an answer rests on, without gradients: by how much its probability falls where they are covered.

Occlusion after Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks" (2014), section 4.2.
"""

import numpy as np

PATCH = 6  # pixels a side that are covered at once: about the width of two strokes
STRIDE = 2  # pixels from one patch to the next; each pixel lies under nine of them


def covered(image: np.ndarray) -> np.ndarray:
    """The image, float32 [channels, height, width], once for every patch that is covered by black: one batch."""
    copies = np.repeat(image[None], len(_patches(image.shape)), axis=0)
    for copy, (rows, columns) in zip(copies, _patches(image.shape), strict=True):
        copy[:, rows, columns] = 0
    return copies


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
    first = STRIDE - PATCH
    return [
        (slice(max(top, 0), top + PATCH), slice(max(left, 0), left + PATCH))
        for top in range(first, height, STRIDE)
        for left in range(first, width, STRIDE)
    ]
