"""A trained tensor of all lanes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ml.lanes.coefficients import Hyper


@dataclass
class Parameter:
    """A trained tensor of all lanes, and the state of their optimizers for it."""

    value: Tensor  # [lanes, …], or with `columns` [rows, columns], the lanes side by side
    columns: Tensor | None = None  # int64 [lanes]: the number of columns of each lane
    gradient: Tensor = field(init=False)
    exp_avg: Tensor = field(init=False)  # Adam's mean, or SGD's velocity
    exp_avg_sq: Tensor = field(init=False)  # Adam's mean square
    average: Tensor = field(init=False)  # of the value over the steps; empty if no lane has one

    def __post_init__(self) -> None:
        if self.columns is None:
            self.gradient = torch.zeros_like(self.value)
        self.average = self.value.new_empty(0)
        self.exp_avg = torch.zeros_like(self.value)
        self.exp_avg_sq = torch.zeros_like(self.value)
        for derived in ("arrays", "asleep", "ends", "lane_of"):
            self.__dict__.pop(derived, None)

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """The value, gradient, exp_avg and exp_avg_sq as arrays [lanes, n] that share memory with them, on a CPU."""
        return [t.view(len(t), -1).numpy() for t in (self.value, self.gradient, self.exp_avg, self.exp_avg_sq)]

    @cached_property
    def asleep(self) -> np.ndarray:
        """The rows whose moments are all 0, bool [rows]: their pixels were always dark. The kernel updates it."""
        found: np.ndarray = (~(self.exp_avg.any(1) | self.exp_avg_sq.any(1))).numpy()
        return found

    @cached_property
    def ends(self) -> np.ndarray:
        """The ends of the lanes' columns, int64 [lanes + 1], from 0 on."""
        columns = [] if self.columns is None else self.columns.tolist()
        return np.cumsum([0, *columns])

    @cached_property
    def lane_of(self) -> Tensor:
        """The lane that each column belongs to, int64 [columns]."""
        widths = np.diff(self.ends)
        return torch.from_numpy(np.repeat(np.arange(len(widths)), widths)).to(self.value.device)

    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move the value to a device and a type, and reset the optimizers' state."""
        self.value = self.value.to(device, dtype)
        self.__post_init__()

    def average_in(self, hyper: Hyper) -> None:
        """Move the average towards the value, by each lane's share of fresh weights."""
        *_, fresh = hyper.tensors
        self.average.lerp_(self.value, self.spread(fresh))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the average as the value inside a `with` block."""
        self.value, self.average = self.average, self.value
        try:
            yield
        finally:
            self.value, self.average = self.average, self.value

    def spread(self, numbers: Tensor) -> Tensor:
        """Return numbers [lanes] in a shape that broadcasts over the value.

        If the lanes lie side by side, these are numbers for each column.
        """
        if self.columns is not None:
            return numbers.index_select(0, self.lane_of)
        return numbers.view(-1, *[1] * (self.value.dim() - 1))

    def of_lanes(self, first: int, last: int, tensor: Tensor) -> Tensor:
        """Return the share of lanes first..last of a tensor in the shape of the value, or in that of `spread`."""
        if self.columns is not None:
            return tensor[..., self.ends[first] : self.ends[last]]
        return tensor[first:last]
