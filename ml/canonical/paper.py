"""What a digit is written on: light or dark, even or not; and the ink that is left when it is taken away."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

THUMB = 64  # pixels of the longer side: enough to see light and shadow
BROAD = 0.2  # of the shorter side: a blur that ink does not survive and light does
OPENING = 0.35  # of the shorter side: ink is narrower, a shadow is wider
LEAST_SPAN = 16.0  # grey levels between the ground and full ink: in deep shadow there would be nothing but noise
FAINTEST = 0.03  # of full ink: what differs less from its ground is no ink
NOISE_CUT = 2.5  # standard deviations of noise that are taken for ground
BLURRED_FROM, BLUR = 0.08, 0.7  # noise, as a share of the ink's contrast, from which it is blurred; by so many pixels
INK_LEVEL = 0.9  # the quantile of ink that becomes white: the middle of a line, which is white in MNIST


@dataclass(frozen=True)
class Ink:
    """The ink of an image, without its ground."""

    values: np.ndarray  # float32 [height, width], 0 for none to 1 for full
    inverted: bool  # whether it is darker than its ground
    ground: float  # the ground's median, 0 to 255
    uneven: float  # how far the ground's lightest and darkest tenths are apart, in grey levels
    noise: float  # its standard deviation, in grey levels


def reduced(image: Image.Image, side: int) -> Image.Image:
    """The image made smaller by a whole number, so that no side is longer than `side`."""
    factor = -(-max(image.size) // side)
    return image.reduce(factor) if factor > 1 else image


def ink_of(image: Image.Image) -> Ink | None:
    """The ink of a grey image; None where nothing stands out from the ground."""
    thumb = reduced(image, THUMB)
    inverted = is_dark_on_light(thumb)
    ground = np.asarray(Image.fromarray(ground_of(thumb, inverted)).resize(image.size, Image.Resampling.BILINEAR))
    grey = np.asarray(image, np.float32)
    # A pen takes its share of whatever light the paper gets; light ink adds its share of what is missing to white.
    span = np.maximum(ground if inverted else 255 - ground, LEAST_SPAN)
    rough = (ground - grey if inverted else grey - ground) / span
    rough -= np.median(rough)
    noise = 1.4826 * float(np.median(np.abs(rough)))  # of normal noise, from the median distance
    values = _exposed(rough, noise)
    if values is None:
        return None
    low, middle, high = np.quantile(ground, (0.1, 0.5, 0.9))
    return Ink(values, inverted, float(middle), float(high - low), noise * float(np.median(span)))


def is_dark_on_light(thumb: Image.Image) -> bool:
    """Whether the ink is darker than what surrounds it.

    Ink is a small part of its surroundings and differs from them much; so differences from a broad blur are skewed
    towards it. Light and shadow differ as far to one side as to the other.
    """
    fine, broad = (thumb.filter(ImageFilter.GaussianBlur(r)) for r in (1, BROAD * min(thumb.size)))
    difference = np.asarray(fine, np.float32) - np.asarray(broad, np.float32)
    return bool((difference**3).sum() < 0)


def ground_of(thumb: Image.Image, inverted: bool) -> np.ndarray:
    """The ground under the ink, float32 [height, width] of 0 to 255: a morphological opening.

    It takes away what is lighter than its surroundings and narrower than the filter, and leaves the edge of a shadow
    where it is. Ink that is darker is taken away by its counterpart, the closing.
    """
    width = max(3, 2 * int(OPENING * min(thumb.size) / 2) + 1)
    darker, lighter = ImageFilter.MinFilter(width), ImageFilter.MaxFilter(width)
    away, back = (lighter, darker) if inverted else (darker, lighter)
    smooth = thumb.filter(ImageFilter.GaussianBlur(1)).filter(away).filter(back)
    return np.asarray(smooth.filter(ImageFilter.GaussianBlur(1)), np.float32)


def _exposed(rough: np.ndarray, noise: float) -> np.ndarray | None:
    """Ink from 0 to 1: what noise may be is cut off, and most of the lines is full."""
    darkest = float(np.quantile(rough, 0.995))
    if rough.max() < FAINTEST:
        return None
    strong = rough[rough > max(NOISE_CUT * noise, 0.3 * darkest)]
    full = float(np.quantile(strong, INK_LEVEL)) if strong.size else float(rough.max())
    if noise > BLURRED_FROM * full:
        rough, noise = _blurred(rough), noise / 2
    low = NOISE_CUT * noise
    values: np.ndarray = np.clip((rough - low) / max(full - low, FAINTEST), 0, 1)
    return values


def _blurred(values: np.ndarray) -> np.ndarray:
    """A Gaussian blur of floats, which Pillow blurs as bytes only."""
    weights = np.exp(-0.5 * (np.arange(-2, 3, dtype=np.float32) / BLUR) ** 2)
    padded = np.pad(values, 2, mode="edge")
    height, width = values.shape
    down = sum(w * padded[i : i + height] for i, w in enumerate(weights / weights.sum()))
    return np.asarray(sum(w * down[:, i : i + width] for i, w in enumerate(weights / weights.sum())))
