"""Resizing of images."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from ml.errors import UnknownName
from ml.images.resize import resized, resizes

# Far enough from black and white that no overshoot is cut off between Pillow's two directions.
IMAGES = np.random.default_rng(0).integers(60, 190, (5, 3, 20, 14), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (20, 31)])
@pytest.mark.parametrize("by", ["bilinear", "bicubic"])
def test_a_resize_is_that_of_torch_without_aliases(by: str, height: int, width: int) -> None:
    """Within one grey of 256: torch rounds floats, Pillow fixed-point numbers after each direction."""
    size = (height, width)
    expected = functional.interpolate(torch.from_numpy(IMAGES).float(), size, mode=by, antialias=True)
    found = resized(IMAGES, height, width, by).astype(float)

    assert found.shape == (5, 3, height, width)
    assert np.abs(found - expected.numpy()).max() <= 1.5


def test_a_box_is_the_mean_of_whole_blocks() -> None:
    """The new size divides the old one."""
    expected = IMAGES.reshape(5, 3, 10, 2, 7, 2).mean((3, 5))

    assert np.abs(resized(IMAGES, 10, 7, "box") - expected).max() <= 1


@pytest.mark.parametrize("by", resizes)
def test_images_of_the_right_size_are_left_alone(by: str) -> None:
    """This is true for every filter."""
    assert resized(IMAGES, 20, 14, by) is IMAGES


def test_an_unknown_resize_is_told() -> None:
    """The error lists the known filters."""
    with pytest.raises(UnknownName, match="bilinear"):
        resized(IMAGES, 8, 8, "lanczos5")
