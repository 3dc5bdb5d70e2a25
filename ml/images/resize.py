"""Images at another size, so that a network can be asked about those of another data set."""

from collections.abc import Callable

import numpy as np
from PIL import Image

from ml.registry import Registry

Resize = Callable[[np.ndarray, int, int], np.ndarray]  # (an image uint8 [height, width], height, width) → the image

resizes: Registry[Resize] = Registry("resize")


def resized(images: np.ndarray, height: int, width: int, by: str) -> np.ndarray:
    """Images, uint8 [n, channels, height, width], at another height and width; the same where they have it.

    UnknownName where no resize has the name `by`.
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


# Pillow's filters: made smaller, each widens its support by the factor, so that no pixel is passed over.
_pillow("nearest", Image.Resampling.NEAREST)
_pillow("box", Image.Resampling.BOX)
_pillow("bilinear", Image.Resampling.BILINEAR)
_pillow("bicubic", Image.Resampling.BICUBIC)
