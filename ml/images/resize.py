"""Resizing, so that a network can classify images of another data set."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from ml.registry import Registry

Resize = Callable[[np.ndarray, int, int], np.ndarray]  # (image uint8 [height, width], height, width) → resized image

resizes: Registry[Resize] = Registry("resize")


def resized(images: np.ndarray, height: int, width: int, by: str) -> np.ndarray:
    """Resize images, uint8 [n, channels, height, width], by the filter that `by` names.

    Raises:
        UnknownName: if there is no filter of this name.
    """
    resize = resizes[by]
    count, channels, *size = images.shape
    if size == [height, width]:
        return images
    planes = images.reshape(-1, *size)
    return np.stack([resize(plane, height, width) for plane in planes]).reshape(count, channels, height, width)


def _pillow(name: str, method: Image.Resampling) -> None:
    def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
        return np.asarray(Image.fromarray(image).resize((width, height), method))

    resizes.register(name)(resize)


# Pillow's filters. Downscaling widens a filter's support by the factor, so that every pixel counts.
_pillow("nearest", Image.Resampling.NEAREST)
_pillow("box", Image.Resampling.BOX)
_pillow("bilinear", Image.Resampling.BILINEAR)
_pillow("bicubic", Image.Resampling.BICUBIC)
