"""The base class of a layer of lanes: one kind of layer for all lanes at once, forward and backward.

Two forms of activation pass between layers: images [batch, height, width, lanes, channels] and rows [lanes, batch,
features]. If lanes differ in channels or features, the narrower ones are padded with zeros. The padding stays zero: a
padded unit has no weights, ReLU passes no gradient through an output of 0, and no optimizer moves a weight whose
gradients were all 0. Each layer keeps from its forward pass what its backward pass needs.
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
    """The form of the activation between two layers."""

    shape: tuple[int, ...]  # (height, width, channels) or (features,), wide enough for every lane
    places: list[Tensor]  # for each lane, int64: the places of its channels or features, in torch's order


class LaneLayer(ABC):
    """One layer of every lane."""

    training = False  # True if a backward pass follows the next forward pass

    def __init__(self, ops: Ops, layers: Sequence[Any], form: Form) -> None:
        self.ops = ops
        self.parameters: list[Parameter] = []
        self.form = self.build(layers, form)

    @abstractmethod
    def build(self, layers: Sequence[Any], form: Form) -> Form:
        """Create the parameters of all lanes.

        Args:
            layers: one of each lane, all of the same kind.
            form: the form of the input.

        Returns:
            The form of the output.
        """

    @abstractmethod
    def forward(self, x: Any) -> Tensor:
        """Return the output for the input `x`; the input of the first layer is a Minibatch."""

    @abstractmethod
    def backward(self, delta: Any, *, wanted: bool) -> Any:
        """Store the gradients of the parameters.

        Args:
            delta: the derivative of the loss with respect to the output.
            wanted: True if the derivative with respect to the input is needed.

        Returns:
            The derivative of the loss with respect to the input. If it is not wanted, the value is ignored.
        """

    def step(self, hyper: Hyper) -> None:
        """Take an optimizer step."""
        for parameter in self.parameters:
            self.ops.update(parameter, hyper)

    def average_in(self, hyper: Hyper) -> None:
        """Update the moving average of the parameters."""
        for parameter in self.parameters:
            parameter.average_in(hyper)

    def move(self, device: torch.device, dtype: torch.dtype, *, averaging: bool = False) -> None:
        """Move the parameters to a device and a type; add a moving average of them if `averaging`."""
        for parameter in self.parameters:
            parameter.move(device, dtype)
            if averaging:
                parameter.average = torch.zeros_like(parameter.value)

    def draw_from(self, place: int, seeds: np.ndarray, steps: np.ndarray) -> None:  # noqa: B027  # most layers draw nothing
        """Set the source of the layer's random numbers.

        Args:
            place: the layer's position in every network.
            seeds: one per lane, uint32 [lanes].
            steps: the steps that each lane has taken, int64 [lanes]; the caller updates this array.
        """

    def draw(self, rows: int) -> None:  # noqa: B027
        """Prepare the random numbers of the next step, for a minibatch of `rows` images."""

    def put(self, lane: int, slot: Slot, tensors: dict[str, Tensor]) -> None:  # noqa: B027  # many layers have none
        """Write one lane's share of the parameters, given by torch's names and in torch's layout."""

    def take(self, lane: int, slot: Slot) -> dict[str, Tensor]:
        """Return one lane's share of the parameters, by torch's names and in torch's layout."""
        return {}


def ranges(widths: Sequence[int]) -> list[Tensor]:
    """Return the places of features of lanes with these widths: they come first, and padding comes after them."""
    return [torch.arange(width) for width in widths]
