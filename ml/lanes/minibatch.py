"""A minibatch in the forms that lanes compute with."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import torch
from torch import Tensor

from ml.kernels import loops

Listed = tuple[np.ndarray, np.ndarray, np.ndarray]  # lists: the length of each, its items, and a value for each item


@dataclass
class Minibatch:
    """A minibatch: some images of a data set, or all of them."""

    images: Tensor  # uint8 [n, channels, height, width]
    labels: Tensor  # int64 [n]
    indices: np.ndarray | None  # int64 [batch]; None for all n, in order
    dtype: torch.dtype = torch.float32

    def of(self, each: Tensor, out: Tensor | None = None) -> Tensor:
        """Return the rows of `each` that belong to the minibatch; `each` has a row for every image.

        Args:
            each: [n, …].
            out: the tensor to write to, if given.
        """
        return each if self.places is None else torch.index_select(each, 0, self.places, out=out)

    @cached_property
    def places(self) -> Tensor | None:
        """The indices, on the device of the images; None for all images."""
        if self.indices is None:
            return None
        return torch.from_numpy(self.indices).to(self.images.device, non_blocking=True)

    @cached_property
    def pixels(self) -> Tensor:
        """The images as a network takes them, [batch, channels, height, width] in 0..1."""
        return self.of(self.images).to(self.dtype).div_(255)

    @property
    def scale(self) -> np.ndarray:
        """The value of each of the 256 pixel levels, in 0..1."""
        return _scale(self.dtype)

    @cached_property
    def lit(self) -> Listed:
        """The pixels of each image that are not dark, as `loops.lit_pixels` lists them."""
        flat = self.images.numpy().reshape(len(self.images), -1)
        listed = _lists(len(self), flat.shape[1], self.scale.dtype)
        loops.lit_pixels(flat, self.indices, self.scale, *listed)
        return listed

    @cached_property
    def by_pixel(self) -> Listed:
        """The images that are not dark at each pixel, as `loops.by_pixel` lists them."""
        listed = _lists(self.lit[1].shape[1] + 1, len(self), self.scale.dtype)
        loops.by_pixel(*self.lit, *listed)
        return listed

    def __len__(self) -> int:
        return len(self.labels if self.indices is None else self.indices)


def _lists(number: int, longest: int, dtype: np.dtype) -> Listed:
    """Return empty arrays for `number` lists."""
    return np.empty(number, np.int64), np.empty((number, longest), np.int64), np.empty((number, longest), dtype)


@cache
def _scale(dtype: torch.dtype) -> np.ndarray:
    scale: np.ndarray = (torch.arange(256, dtype=dtype) / 255).numpy()
    return scale
