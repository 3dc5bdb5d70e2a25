"""The width of lines: measured, and brought into the range that MNIST has."""

import numpy as np
from PIL import Image, ImageFilter

MNIST_BOX = 20  # pixels, of the box that MNIST's digits fill
THINNEST, THICKEST = 1.9, 3.6  # pixels in that box: four fifths of MNIST lie between; what does is left alone
LARGER = 4  # the filter's size is whole pixels, so it works at this many times the form's resolution


def width_of(ink: np.ndarray) -> float:
    """The mean width of the lines in pixels: a line has two sides, so it is twice its ink by its outline.

    `ink` is float [height, width] of 0 to 1. The outline is the total variation, which counts soft edges once.
    """
    padded = np.pad(ink, 1)
    outline = np.hypot(np.diff(padded, axis=0)[:, :-1], np.diff(padded, axis=1)[:-1]).sum()
    return float(2 * ink.sum() / outline) if outline else 0.0


def widened(ink: np.ndarray, by: float) -> np.ndarray:
    """The ink, enlarged `LARGER` times, with lines wider by so many pixels of the form; narrower where negative."""
    reach = round(LARGER * abs(by) / 2)
    if reach == 0:
        return ink
    near = ImageFilter.MaxFilter(3) if by > 0 else ImageFilter.MinFilter(3)
    image = Image.fromarray(np.rint(255 * np.pad(ink, reach)).astype(np.uint8))
    for _ in range(reach):  # the same as once over a square of 2 · reach + 1, which takes reach times as long
        image = image.filter(near)
    return np.asarray(image, np.float32) / 255


def change(width: float, box: int) -> float:
    """By how many pixels lines of this width should grow in a box of so many; negative where they should shrink."""
    thinnest, thickest = (limit * box / MNIST_BOX for limit in (THINNEST, THICKEST))
    return min(max(width, thinnest), thickest) - width
