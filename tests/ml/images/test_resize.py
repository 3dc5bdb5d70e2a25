"""Resizing of images."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from ml.errors import UnknownName
from ml.images.resize import resized, resizes

# These greys are so far from black and white that Pillow clips no overshoot between its two directions.
IMAGES = np.random.default_rng(0).integers(60, 190, (5, 3, 20, 14), np.uint8)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (28, 28), (20, 31)])
@pytest.mark.parametrize("by", ["bilinear", "bicubic"])
def test_a_resize_equals_torchs_with_antialiasing(by: str, height: int, width: int) -> None:
    """They differ by at most 1.5 of 256 greys: torch rounds floats, Pillow fixed-point numbers after each direction."""
    size = (height, width)
    expected = functional.interpolate(torch.from_numpy(IMAGES).float(), size, mode=by, antialias=True)
    found = resized(IMAGES, height, width, by).astype(float)

    assert found.shape == (5, 3, height, width)
    assert np.abs(found - expected.numpy()).max() <= 1.5


def test_a_box_is_the_mean_of_whole_blocks() -> None:
    """This holds if the new size divides the old one."""
    expected = IMAGES.reshape(5, 3, 10, 2, 7, 2).mean((3, 5))

    assert np.abs(resized(IMAGES, 10, 7, "box") - expected).max() <= 1


@pytest.mark.parametrize("by", resizes)
def test_images_of_the_right_size_are_returned_unchanged(by: str) -> None:
    """Every filter returns the same array."""
    assert resized(IMAGES, 20, 14, by) is IMAGES


def test_an_unknown_resize_is_refused() -> None:
    """The error lists the known filters."""
    with pytest.raises(UnknownName, match="bilinear"):
        resized(IMAGES, 8, 8, "lanczos5")
