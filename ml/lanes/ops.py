"""The arithmetic of lanes: `KernelOps` does it on a CPU, `TorchOps` on any device."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ml.lanes.coefficients import Hyper
from ml.lanes.minibatch import Minibatch
from ml.lanes.parameter import Parameter


@dataclass
class Pooled:
    """The gradient of a pooled activation, and the places of the largest in each block of size × size."""

    delta: Tensor  # the derivative of the loss by the output of the pooling
    place: Tensor  # as `Ops.pool` returned it
    x: Tensor  # the input of the pooling
    size: int


class Ops(Protocol):
    """One implementation. Activations are [batch, height, width, lanes, channels] or [lanes, batch, features]."""

    def image_linear(self, batch: Minibatch, weight: Tensor) -> Tensor:
        """Return pixels × weight, [batch, columns]; weight is [pixels + 1, columns], and its last row is the bias."""

    def image_linear_update(self, batch: Minibatch, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        """Take an optimizer step of the weight of `image_linear`, from delta [batch, columns]."""

    def image_convolution(self, batch: Minibatch, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve images with weight [lanes, outputs, size, size, channels] and bias [lanes, outputs]."""

    def image_convolution_gradients(self, batch: Minibatch, delta: Tensor, weight: Parameter, bias: Parameter) -> None:
        """Set the gradients of the weight and bias of `image_convolution`."""

    def convolution(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve each lane's activation with weight and bias as in `image_convolution`."""

    def convolution_gradients(
        self, pooled: Pooled, x: Tensor, weight: Parameter, bias: Parameter, *, wanted: bool
    ) -> Tensor:
        """Set the gradients of weight and bias of `convolution`; return the derivative by x if it is wanted."""

    def pool(self, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Return the largest of each block and its place, for `pool_gradient` and `convolution_gradients`."""

    def pool_gradient(self, pooled: Pooled) -> Tensor:
        """Return the derivative by the input of the pooling: each block's delta at its place, else 0."""

    def rank_update(self, x: Tensor, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        """Take an optimizer step of weight [lanes, features + 1, outputs] with the gradient xᵀ delta."""

    def update(self, parameter: Parameter, hyper: Hyper) -> None:
        """Take an optimizer step with the stored gradient."""

    def cross_entropy(self, outputs: Tensor, labels: Tensor, smoothing: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return each lane's mean cross entropy [lanes], and its derivative by outputs [lanes, batch, classes].

        Args:
            outputs: [lanes, batch, classes].
            labels: int64 [batch].
            smoothing: [lanes], the share of a target that is spread evenly over all classes; None if there is none.
        """

    def drop(self, keys: Tensor, places: Tensor, shares: Tensor, mask: Tensor) -> None:
        """Fill a dropout mask as `noise.kept` does; keys and places are its uint32 numbers as int32 with equal bits."""
