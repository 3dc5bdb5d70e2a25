"""Dropout of lanes: a lane's mask does not depend on the lanes that it trains with."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ml.kernels.noise import GOLDEN, keys_of, places_of
from ml.lanes.layer import Form, LaneLayer
from ml.layers import Dropout


class Dropping(LaneLayer):
    """Dropout, in place.

    A mask depends on the lane's seed and steps, and on the number of each feature in torch's order.
    """

    def build(self, layers: Sequence[Dropout], form: Form) -> Form:
        self.shares = torch.tensor([layer.p for layer in layers], dtype=torch.float64)
        self.numbers = torch.from_numpy(places_of(_numbers(form)).view(np.int32))
        self.keys: dict[int, Tensor] = {}  # by the size of the minibatch
        self.mask = torch.empty(0)
        return form

    def move(self, device: torch.device, dtype: torch.dtype, *, averaging: bool = False) -> None:
        self.shares, self.numbers = self.shares.to(device), self.numbers.to(device)

    def draw_from(self, place: int, seeds: np.ndarray, steps: np.ndarray) -> None:
        self.seeds, self.steps = seeds + np.array([place], np.uint32) * GOLDEN, steps

    def draw(self, rows: int) -> None:
        keys = torch.from_numpy(keys_of(self.seeds, self.steps, rows).view(np.int32))
        if rows not in self.keys:
            self.keys[rows] = torch.empty_like(keys, device=self.numbers.device)
        self.keys[rows].copy_(keys, non_blocking=True)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keys = self.keys[x.shape[1] if x.dim() == 3 else x.shape[0]]
        shape = (*keys.shape, self.numbers.shape[1])
        if self.mask.shape != shape or self.mask.dtype != x.dtype:
            self.mask = x.new_empty(shape)
        self.ops.drop(keys, self.numbers, self.shares, self.mask)
        return self._masked(x)

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        return self._masked(delta)

    def _masked(self, x: Tensor) -> Tensor:
        mask = self.mask
        if x.dim() == 5:
            mask = mask.view(*mask.shape[:2], *x.shape[1:3], x.shape[4]).permute(1, 2, 3, 0, 4)
        return x.mul_(mask)


def _numbers(form: Form) -> np.ndarray:
    """Return the number of each feature of a lane in torch's order, [lanes, features of the form]; 0 for padding."""
    *sides, width = form.shape
    pixels = np.arange(int(np.prod(sides)))
    numbers = np.zeros((len(form.places), len(pixels), width), np.uint32)
    for own, places in zip(numbers, form.places, strict=True):
        own[:, places.numpy()] = pixels[:, None] + np.arange(len(places)) * len(pixels)
    return numbers.reshape(len(numbers), -1)
