"""The networks: each is a function from (channels, height, width, classes, params) to a list of layers.

To add a network, write its parameters, its function and its default search space here. The API, the catalog, training
and serving then know it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from ml.layers import Conv2d, Dropout, Flatten, Layer, Linear, MaxPool2d, ReLU, Shape, shapes
from ml.parameters.params import Params
from ml.parameters.space import Int, SearchSpace
from ml.registry import Registry

Width = Annotated[int, Field(ge=1, le=16384)]


Build = Callable[[int, int, int, int, Any], list[Layer]]  # (channels, height, width, classes, params) → layers


@dataclass(frozen=True)
class Network:
    """A network that can be named in a specification."""

    build: Build
    params: type[Params]  # its hyper-parameters
    space: SearchSpace  # searched if a job names no search space
    description: str

    def layers(self, shape: Shape, classes: int, params: Params) -> list[Layer]:
        """Return the layers for images of `shape` (channels, height, width).

        Raises:
            ShapeError: if the network cannot take images of this shape.
        """
        channels, height, width = shape
        layers = self.build(channels, height, width, classes, params)
        shapes(layers, shape)
        return layers

    def space_for(self, images: int) -> SearchSpace:
        """Return the default search space for a number of training images, with batches no larger than that."""
        batches = self.space.get("batch_size")
        if not isinstance(batches, Int) or batches.high <= images:
            return self.space
        fitting = batches.model_copy(update={"low": min(batches.low, images), "high": images})
        return {**self.space, "batch_size": fitting}


networks: Registry[Network] = Registry("network")

# These ranges trained well on MNIST for all four networks; the report's are wider at both ends.
TRAINING_SPACE = {
    "batch_size": {"type": "int", "low": 16, "high": 256, "log": True},
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "optimizer": "adam",
}


def network(name: str, params: type[Params], space: dict[str, Any]) -> Callable[[Build], Build]:
    """Register the decorated function as the network `name`; `space` extends TRAINING_SPACE."""

    def add(build: Build) -> Build:
        whole = TypeAdapter(SearchSpace).validate_python({**TRAINING_SPACE, **space})
        networks.register(name)(Network(build, params, whole, (build.__doc__ or "").strip()))
        return build

    return add


@network("perceptron", Params, space={})
def perceptron(channels: int, height: int, width: int, classes: int, params: Params) -> list[Layer]:
    """One linear layer from pixels to classes."""
    return [Flatten(), Linear(channels * height * width, classes)]


class HiddenParams(Params):
    """The hyper-parameters of networks with hidden layers."""

    dropout: float | None = Field(None, ge=0, lt=1, description="share of hidden units set to 0 in a training step")


class ShallowParams(HiddenParams):
    """The hyper-parameters of the network with one hidden layer."""

    hidden_size: Width = Field(128, description="units in the hidden layer")


@network("shallow", ShallowParams, space={"hidden_size": {"type": "int", "low": 64, "high": 1024, "log": True}})
def shallow(channels: int, height: int, width: int, classes: int, params: ShallowParams) -> list[Layer]:
    """One hidden layer."""
    return _dense(channels * height * width, [params.hidden_size], classes, params.dropout)


class MlpParams(HiddenParams):
    """The hyper-parameters of the network with several hidden layers."""

    hidden_sizes: list[Width] = Field([256, 128], min_length=1, max_length=64, description="units in each hidden layer")


@network(
    "mlp",
    MlpParams,
    space={
        "hidden_sizes": {
            "type": "list",
            "length": {"type": "int", "low": 2, "high": 4},
            "items": {"type": "int", "low": 64, "high": 512, "log": True},
        }
    },
)
def mlp(channels: int, height: int, width: int, classes: int, params: MlpParams) -> list[Layer]:
    """Several hidden layers, each with its own width."""
    return _dense(channels * height * width, params.hidden_sizes, classes, params.dropout)


def _dense(features: int, hidden: list[int], classes: int, dropout: float | None) -> list[Layer]:
    """Return linear layers from `features` over `hidden` to `classes`, with ReLU and any dropout between them."""
    layers: list[Layer] = [Flatten()]
    for entering, leaving in pairwise([features, *hidden]):
        layers += [Linear(entering, leaving), ReLU(), *([] if dropout is None else [Dropout(dropout)])]
    return [*layers, Linear(hidden[-1], classes)]


@network("cnn", HiddenParams, space={})
def cnn(channels: int, height: int, width: int, classes: int, params: HiddenParams) -> list[Layer]:
    """A convolutional network after LeNet-5 (LeCun et al., 1998) without padding: 44,426 weights on 28×28."""
    convolutions: list[Layer] = [
        *(Conv2d(channels, 6, 5), ReLU(), MaxPool2d(2)),
        *(Conv2d(6, 16, 5), ReLU(), MaxPool2d(2)),
    ]
    features = prod(shapes(convolutions, (channels, height, width))[-1])
    return [*convolutions, *_dense(features, [120, 84], classes, params.dropout)]
