"""What lanes compute; `KernelOps` does it on a CPU, `TorchOps` anywhere else."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from ml.lanes.coefficients import Hyper
from ml.lanes.minibatch import Minibatch
from ml.lanes.parameter import Parameter


@dataclass
class Pooled:
    """What the loss asks of the largest of each block of size × size, and which those were."""

    delta: Tensor
    place: Tensor  # as `Ops.pool` gave it
    x: Tensor  # what was pooled
    size: int


class Ops(Protocol):
    """One way of computing. Activations are [batch, height, width, lanes, channels] or [lanes, batch, features]."""

    def image_linear(self, batch: Minibatch, weight: Tensor) -> Tensor:
        """[batch, columns] = pixels × weight [pixels + 1, columns], whose last row is the bias."""

    def image_linear_update(self, batch: Minibatch, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        """One optimizer step of such a weight, from delta [batch, columns]."""

    def image_convolution(self, batch: Minibatch, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve with weight [lanes, outputs, size, size, channels] and bias [lanes, outputs]."""

    def image_convolution_gradients(self, batch: Minibatch, delta: Tensor, weight: Parameter, bias: Parameter) -> None:
        """Set the gradients of such a weight and bias."""

    def convolution(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve each lane's own activation."""

    def convolution_gradients(
        self, pooled: Pooled, x: Tensor, weight: Parameter, bias: Parameter, *, wanted: bool
    ) -> Tensor:
        """Set the gradients of such a convolution; what the loss asks of x, where that is wanted."""

    def pool(self, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The largest of each block, and where it stands, for `pool_gradient` and `convolution_gradients`."""

    def pool_gradient(self, pooled: Pooled) -> Tensor:
        """What the loss asks of all that was pooled: each block's delta at its place."""

    def rank_update(self, x: Tensor, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        """One optimizer step of weight [lanes, features + 1, outputs] with the gradient xᵀ delta."""

    def update(self, parameter: Parameter, hyper: Hyper) -> None:
        """One optimizer step."""

    def cross_entropy(self, outputs: Tensor, labels: Tensor, smoothing: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each lane's mean loss [lanes], and its derivative by outputs [lanes, batch, classes].

        smoothing [lanes] is the share of a target that all classes have in common, if any lane has one.
        """

    def drop(self, keys: Tensor, places: Tensor, shares: Tensor, mask: Tensor) -> None:
        """Fill a dropout mask as `noise.kept` does; keys and places are its uint32, as int32 with the same bits."""
