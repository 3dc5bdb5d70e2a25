"""The torch module behind the layer `Fragile`."""

import os
from itertools import count

import numpy as np
import torch
from torch import Tensor, nn

FATAL_STEP = 100  # the training step of the fault; by then a trial on a small data set has a measurement
CHUNK = 64 << 20  # bytes


class Fragile(nn.Module):
    """The identity, until the training step at which its fault happens."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.fault != "none" and torch.is_grad_enabled():
            self.steps += 1
            if self.steps == FATAL_STEP:
                _FAULTS[self.fault]()
        return x


def _allocate() -> None:
    """Allocate memory, and write to it, until this process is killed."""
    taken = []
    for _ in count():
        taken.append(np.ones(CHUNK, dtype=np.uint8))


_FAULTS = {"abort": os.abort, "allocate": _allocate}
