"""The geometry of a digit: its box, its slant, its size, and its place in the frame."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ml.layers import Shape

LEANS = (-0.35, 0.6)  # the lean, in pixels to the right per pixel upwards, of nine tenths of MNIST; more is corrected
STRAIGHT = 0.03  # an excess over these limits up to which a lean stays
FAINT = 8  # of 255: fainter ink is not drawn, so that a box is as large as it looks
WHITE = 250  # the least value of the lightest pixel of an image that is in form


@dataclass(frozen=True)
class DigitForm:
    """The form of a data set's digits: the ink fits a box, its aspect is kept, its centre of mass is in the middle."""

    height: int  # pixels
    width: int
    box: int  # the longer side of the ink


# "normalized to fit in a 20x20 pixel box while preserving their aspect ratio … centered in a 28x28 image by computing
# the center of mass of the pixels", http://yann.lecun.com/exdb/mnist/
MNIST = DigitForm(28, 28, 20)


def form_of(shape: Shape) -> DigitForm:
    """Return the form of images of this shape, (channels, height, width): MNIST's, else ink that fills the frame."""
    height, width = shape[-2:]
    return MNIST if (height, width) == (MNIST.height, MNIST.width) else DigitForm(height, width, min(height, width))


def cropped(ink: np.ndarray) -> np.ndarray:
    """Return the bounding box of the ink, [height, width]; empty if there is no ink."""
    left, top, right, bottom = box_of(ink)
    return ink[top:bottom, left:right]


def box_of(ink: np.ndarray) -> tuple[int, int, int, int]:
    """Return left, top, right and bottom of the ink's bounding box."""
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    return (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if len(rows) else (0, 0, 0, 0)


def centre_of(ink: np.ndarray) -> tuple[float, float]:
    """Return the centre of mass, x and y; a pixel's centre is at its index."""
    mass = float(ink.sum(dtype=float))
    columns, rows = (ink.sum(axis, dtype=float) for axis in (0, 1))
    return float(columns @ np.arange(len(columns))) / mass, float(rows @ np.arange(len(rows))) / mass


def lean_of(ink: np.ndarray) -> float:
    """Return the lean of ink, in pixels to the right per pixel upwards: the slope of its rows' centres of mass."""
    x, y = centre_of(ink)
    across, up = np.arange(ink.shape[1]) - x, y - np.arange(ink.shape[0])
    spread = float(ink.sum(1, dtype=float) @ up**2)
    return float(up @ ink @ across) / spread if spread else 0.0


def excess_of(lean: float) -> float:
    """Return by how much a lean exceeds those of most handwriting; 0 if it does not."""
    excess = lean - min(max(lean, LEANS[0]), LEANS[1])
    return excess if abs(excess) > STRAIGHT else 0.0


def sheared(ink: np.ndarray, by: float) -> np.ndarray:
    """Return the ink, float32 [height, width] of 0 to 1, with its lean reduced by `by`."""
    height = len(ink)
    room = np.pad(ink, ((0, 0), (int(abs(by) * height) + 1,) * 2))
    back = (1, -by, by * height / 2, 0, 1, 0)
    image = Image.fromarray(room).transform(room.shape[::-1], Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)
    values: np.ndarray = np.clip(np.asarray(image), 0, 1)
    return cropped(np.where(values > FAINT / 255, values, np.float32(0)))


def fitted(ink: np.ndarray, side: int) -> np.ndarray:
    """Return the ink, float32 [height, width] of 0 to 1, scaled so that its longer side is `side`; the aspect stays."""
    factor = side / max(ink.shape)
    size = [max(1, round(factor * length)) for length in ink.shape[::-1]]
    if size == [*ink.shape[::-1]]:
        return ink
    values: np.ndarray = np.clip(np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BICUBIC)), 0, 1)
    return values


def drawn(ink: np.ndarray, form: DigitForm) -> np.ndarray:
    """Return the ink as bytes that fill the form's box, uint8; its lightest pixel is white."""
    pixels = np.zeros((1, 1), np.uint8)
    for _ in range(3):  # the faintest rim may be lost; then the rest is fitted again
        ink = fitted(ink, form.box)
        levels = np.rint(255 / ink.max() * ink).astype(np.uint8)
        pixels = cropped(np.where(levels < FAINT, 0, levels).astype(np.uint8))
        if max(pixels.shape) == form.box:
            break
        ink = pixels.astype(np.float32) / 255
    return pixels


def placed(pixels: np.ndarray, form: DigitForm) -> np.ndarray:
    """Return the frame, uint8 [height, width], with the centre of mass as near to its middle pixel as the ink fits."""
    height, width = pixels.shape
    x, y = centre_of(pixels)
    left = min(max(round(form.width // 2 - x), 0), form.width - width)
    top = min(max(round(form.height // 2 - y), 0), form.height - height)
    frame = np.zeros((form.height, form.width), np.uint8)
    frame[top : top + height, left : left + width] = pixels
    return frame


def is_in_form(grey: np.ndarray, form: DigitForm) -> bool:
    """Return whether an image has the form: white on black, in its box and in its place."""
    if grey.shape != (form.height, form.width) or grey.max() < WHITE:
        return False
    pixels = cropped(grey)
    return form.box - 1 <= max(pixels.shape) <= form.box and np.array_equal(placed(pixels, form), grey)
