"""What a layer of lanes is: one kind of layer for all lanes at once, forward and backward.

Two forms of activation pass between them: images [batch, height, width, lanes, channels] and rows [lanes, batch,
features]. Where lanes differ in channels or features, the narrower are padded with zeros, and stay zero: a padded
unit has no weights, ReLU passes nothing on where its output is 0, and no optimizer moves a weight whose gradients were
all 0. Each layer keeps what its backward pass needs from the forward pass before it.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ml.lanes.coefficients import Hyper
from ml.lanes.ops import Ops
from ml.lanes.parameter import Parameter

Slot = Literal["value", "exp_avg", "exp_avg_sq", "average"]  # which tensor of a parameter


@dataclass
class Form:
    """What passes between two layers."""

    shape: tuple[int, ...]  # (height, width, channels) or (features,), wide enough for every lane
    places: list[Tensor]  # of each lane, int64: where its channels or features lie, in torch's order


class LaneLayer(ABC):
    """One layer of every lane."""

    training = False  # whether a backward pass follows the next forward pass

    def __init__(self, ops: Ops, layers: Sequence[Any], form: Form) -> None:
        self.ops = ops
        self.parameters: list[Parameter] = []
        self.form = self.build(layers, form)

    @abstractmethod
    def build(self, layers: Sequence[Any], form: Form) -> Form:
        """Make room for the lanes' own layers, which `form` enters; the form that leaves."""

    @abstractmethod
    def forward(self, x: Any) -> Tensor:
        """What leaves where `x` enters; a Batch enters the first layer."""

    @abstractmethod
    def backward(self, delta: Any, *, wanted: bool) -> Any:
        """Note the gradients, from the loss's derivative by what left; that by what entered, where it is wanted."""

    def step(self, hyper: Hyper) -> None:
        """One optimizer step."""
        for parameter in self.parameters:
            self.ops.update(parameter, hyper)

    def average_in(self, hyper: Hyper) -> None:
        """Bring the moving average of what it trains nearer to what it is now."""
        for parameter in self.parameters:
            parameter.average_in(hyper)

    def move(self, device: torch.device, dtype: torch.dtype, *, averaging: bool = False) -> None:
        """Move what it trains to a device and a type; make room for a moving average of it, where one is wanted."""
        for parameter in self.parameters:
            parameter.move(device, dtype)
            if averaging:
                parameter.average = torch.zeros_like(parameter.value)

    def draw_from(self, place: int, seeds: np.ndarray, steps: np.ndarray) -> None:  # noqa: B027  # most draw nothing
        """Note what random numbers are drawn from: the layer's place in every network, and each lane's seed and steps.

        seeds uint32 [lanes]; steps int64 [lanes], which is kept up.
        """

    def draw(self, rows: int) -> None:  # noqa: B027
        """Get ready to draw for the next step, of a minibatch of so many images."""

    def put(self, lane: int, slot: Slot, tensors: dict[str, Tensor]) -> None:  # noqa: B027  # many have none
        """Write one lane's share of the parameters, given by torch's names and in torch's layout."""

    def take(self, lane: int, slot: Slot) -> dict[str, Tensor]:
        """Read what `put` wrote."""
        return {}


def ranges(widths: Sequence[int]) -> list[Tensor]:
    """Where the features of lanes of these widths lie: at the beginning of what is wide enough for all."""
    return [torch.arange(width) for width in widths]
