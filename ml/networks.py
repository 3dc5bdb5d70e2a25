"""The networks: each a function from (channels, height, width, classes, params) to a list of layers.

To add one, write its parameters, its function and its default search space here; the API, the catalog, training and
serving pick it up.
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
    params: type[Params]  # what it takes
    space: SearchSpace  # what is searched where a job names no space
    description: str

    def layers(self, shape: Shape, classes: int, params: Params) -> list[Layer]:
        """The layers for images of `shape` (channels, height, width); ShapeError where the network cannot take it."""
        channels, height, width = shape
        layers = self.build(channels, height, width, classes, params)
        shapes(layers, shape)
        return layers

    def space_for(self, images: int) -> SearchSpace:
        """What is searched where a job names no space and trains on so many images: no larger batches."""
        batches = self.space.get("batch_size")
        if not isinstance(batches, Int) or batches.high <= images:
            return self.space
        fitting = batches.model_copy(update={"low": min(batches.low, images), "high": images})
        return {**self.space, "batch_size": fitting}


networks: Registry[Network] = Registry("network")

# Ranges that trained well on MNIST for all four networks; the report's own are wider at both ends.
TRAINING_SPACE = {
    "batch_size": {"type": "int", "low": 16, "high": 256, "log": True},
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
    "optimizer": "adam",
}


def network(name: str, params: type[Params], space: dict[str, Any]) -> Callable[[Build], Build]:
    """Register the decorated function as the network `name`, with `space` beside the search space of training."""

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
    """Layers that are neither pixels nor classes."""

    dropout: float | None = Field(None, ge=0, lt=1, description="share of hidden units left out of a training step")


class ShallowParams(HiddenParams):
    """One hidden layer."""

    hidden_size: Width = Field(128, description="units of the hidden layer")


@network("shallow", ShallowParams, space={"hidden_size": {"type": "int", "low": 64, "high": 1024, "log": True}})
def shallow(channels: int, height: int, width: int, classes: int, params: ShallowParams) -> list[Layer]:
    """One hidden layer."""
    return _dense(channels * height * width, [params.hidden_size], classes, params.dropout)


class MlpParams(HiddenParams):
    """Several hidden layers."""

    hidden_sizes: list[Width] = Field([256, 128], min_length=1, max_length=64, description="units of each hidden layer")


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
    """Linear layers with ReLU between, and dropout where it is given, from `features` over `hidden` to `classes`."""
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
