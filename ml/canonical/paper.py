"""The paper of an image and its ink: the ground may be light or dark, even or uneven, and is subtracted."""

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

THUMB = 64  # pixels of the longer side: enough for light and shadow
BROAD = 0.2  # of the shorter side: the width of a blur that removes ink and keeps light
OPENING = 0.35  # of the shorter side: ink is narrower, a shadow is wider
LEAST_SPAN = 16.0  # least grey levels between the ground and full ink; less would be noise, in deep shadow
FAINTEST = 0.03  # of full ink: a smaller difference from the ground is no ink
NOISE_CUT = 2.5  # standard deviations of noise that count as ground
BLURRED_FROM, BLUR = 0.08, 0.7  # noise is blurred from this share of the ink's contrast on, by so many pixels
INK_LEVEL = 0.9  # the quantile of ink that becomes white: the middle of a line, which is white in MNIST


@dataclass(frozen=True)
class Ink:
    """The ink of an image, without its ground."""

    values: np.ndarray  # float32 [height, width], 0 for none to 1 for full
    inverted: bool  # True if it is darker than its ground
    ground: float  # the ground's median, 0 to 255
    uneven: float  # the difference between the ground's lightest and darkest tenths, in grey levels
    noise: float  # standard deviation, in grey levels


def reduced(image: Image.Image, side: int) -> Image.Image:
    """Return the image reduced by a whole factor, so that no side is longer than `side`."""
    factor = -(-max(image.size) // side)
    return image.reduce(factor) if factor > 1 else image


def ink_of(image: Image.Image) -> Ink | None:
    """Return the ink of a grey image; None if nothing stands out from the ground."""
    thumb = reduced(image, THUMB)
    inverted = is_dark_on_light(thumb)
    ground = np.asarray(Image.fromarray(ground_of(thumb, inverted)).resize(image.size, Image.Resampling.BILINEAR))
    grey = np.asarray(image, np.float32)
    # Dark ink removes a share of the light on the paper; light ink adds a share of the difference to white.
    span = np.maximum(ground if inverted else 255 - ground, LEAST_SPAN)
    rough = (ground - grey if inverted else grey - ground) / span
    rough -= np.median(rough)
    noise = 1.4826 * float(np.median(np.abs(rough)))  # the factor gives the standard deviation of normal noise
    values = _exposed(rough, noise)
    if values is None:
        return None
    low, middle, high = np.quantile(ground, (0.1, 0.5, 0.9))
    return Ink(values, inverted, float(middle), float(high - low), noise * float(np.median(span)))


def is_dark_on_light(thumb: Image.Image) -> bool:
    """Return whether the ink is darker than its surroundings.

    Ink covers a small area and differs much from its surroundings, so differences from a broad blur are skewed towards
    it. Light and shadow differ equally in both directions.
    """
    fine, broad = (thumb.filter(ImageFilter.GaussianBlur(r)) for r in (1, BROAD * min(thumb.size)))
    difference = np.asarray(fine, np.float32) - np.asarray(broad, np.float32)
    return bool((difference**3).sum() < 0)


def ground_of(thumb: Image.Image, inverted: bool) -> np.ndarray:
    """Return the ground under the ink, float32 [height, width] of 0 to 255: a morphological opening.

    An opening removes shapes that are lighter than their surroundings and narrower than the filter, and does not move
    the edge of a shadow. Dark ink is removed by the counterpart, a closing.
    """
    width = max(3, 2 * int(OPENING * min(thumb.size) / 2) + 1)
    darker, lighter = ImageFilter.MinFilter(width), ImageFilter.MaxFilter(width)
    away, back = (lighter, darker) if inverted else (darker, lighter)
    smooth = thumb.filter(ImageFilter.GaussianBlur(1)).filter(away).filter(back)
    return np.asarray(smooth.filter(ImageFilter.GaussianBlur(1)), np.float32)


def _exposed(rough: np.ndarray, noise: float) -> np.ndarray | None:
    """Return ink from 0 to 1, without what may be noise, and with most of the lines at 1; None if there is none."""
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
    """Return a Gaussian blur of floats, because Pillow blurs only bytes."""
    weights = np.exp(-0.5 * (np.arange(-2, 3, dtype=np.float32) / BLUR) ** 2)
    padded = np.pad(values, 2, mode="edge")
    height, width = values.shape
    down = sum(w * padded[i : i + height] for i, w in enumerate(weights / weights.sum()))
    return np.asarray(sum(w * down[:, i : i + width] for i, w in enumerate(weights / weights.sum())))
