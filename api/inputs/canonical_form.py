"""Images in their data set's own form: sized, centred and inverted as that data set's images are."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from api.inputs.options import Options
from api.inputs.pictures import at_size, grey
from api.inputs.pixels import WHITE, InputImages, of_array
from ml.canonical.canonical import Canonical, canonical
from ml.canonical.frame import form_of
from ml.layers import Shape


def in_canonical_form(images_of: Callable[[Shape], InputImages], shape: Shape) -> InputImages:
    """Return the images of a body for a shape, in the data set's own form if they have one channel."""
    images = images_of(shape)
    if not len(images.pixels) or images.pixels.shape[1] != 1:
        return images
    found = [canonical(levels, form_of(images.pixels.shape)) for levels in _grey_levels(images.pixels)]
    pixels = np.stack([each.pixels for each in found])[:, None] / np.float32(WHITE)
    return images.reported([_report(each) for each in found], pixels)


def picture_image(picture: Image.Image, options: Options, shape: Shape) -> InputImages:
    """Decode a picture for a shape: in the data set's own form, or only resized if `canonical` is false."""
    if options.canonical is False or shape[0] != 1:
        return of_array(at_size(picture, shape).reshape(1, -1), shape, options.scale or WHITE, several=False)
    found = canonical(grey(picture), form_of(shape))
    return of_array(found.pixels.reshape(1, -1), shape, WHITE, several=False).reported([_report(found)])


def _grey_levels(pixels: np.ndarray) -> np.ndarray:
    """Return pixels [n, 1, height, width] of an `InputImages` as uint8 [n, height, width]."""
    levels = pixels[:, 0]
    return levels if levels.dtype == np.uint8 else np.rint(levels * WHITE).astype(np.uint8)


def _report(found: Canonical) -> dict[str, Any]:
    """Return what was changed, and the pixels that the network is fed, 0 to 255."""
    return {**asdict(found.report), "pixels": found.pixels.tolist()}
