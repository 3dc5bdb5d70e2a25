"""The width of lines: measure it and bring it into the range of MNIST."""

import numpy as np
from PIL import Image, ImageFilter

MNIST_BOX = 20  # pixels of the box that MNIST's digits fill
THINNEST, THICKEST = 1.9, 3.6  # pixels in that box: the widths of four fifths of MNIST, which stay as they are
LARGER = 4  # times the form's resolution, at which lines are widened, because the filter's size is whole pixels


def width_of(ink: np.ndarray) -> float:
    """Return the mean width of the lines in pixels: twice the ink divided by the outline, as a line has two sides.

    `ink` is float [height, width] of 0 to 1. The outline is the total variation, which counts soft edges once.
    """
    padded = np.pad(ink, 1)
    outline = np.hypot(np.diff(padded, axis=0)[:, :-1], np.diff(padded, axis=1)[:-1]).sum()
    return float(2 * ink.sum() / outline) if outline else 0.0


def widened(ink: np.ndarray, by: float) -> np.ndarray:
    """Return ink, enlarged `LARGER` times, with lines wider by so many pixels of the form; narrower if negative."""
    reach = round(LARGER * abs(by) / 2)
    if reach == 0:
        return ink
    near = ImageFilter.MaxFilter(3) if by > 0 else ImageFilter.MinFilter(3)
    image = Image.fromarray(np.rint(255 * np.pad(ink, reach)).astype(np.uint8))
    for _ in range(reach):  # as one filter of size 2 · reach + 1 would do, which takes reach times as long
        image = image.filter(near)
    return np.asarray(image, np.float32) / 255


def change(width: float, box: int) -> float:
    """Return by how many pixels lines of this width should grow in a box of this size; negative if they shrink."""
    thinnest, thickest = (limit * box / MNIST_BOX for limit in (THINNEST, THICKEST))
    return min(max(width, thinnest), thickest) - width
