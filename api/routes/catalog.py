"""The catalog: networks, data sets, samplers, pruners and optimizers that a job can name."""

from collections.abc import Iterator
from contextlib import suppress
from math import prod
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, TypeAdapter

from api.deps import UploadedDep
from api.http.errors import BadInput
from ml.datasets import Dataset, datasets
from ml.errors import UnknownName
from ml.layers import (
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    Shape,
    ShapeError,
    Wrapped,
    flop_count,
    parameter_count,
    shapes,
    trains_alone,
)
from ml.networks import Network, networks
from ml.optimizers import optimizers
from ml.parameters.params import describe
from ml.parameters.space import SearchSpace
from ml.samplers import pruners, samplers

router = APIRouter(tags=["catalog"])

Parameters = dict[str, dict[str, Any]]  # parameter name to its JSON Schema: type, range, default


class Tensor(BaseModel):
    """A tensor of a network, named and laid out as in y = x w + b."""

    name: str
    shape: list[int]


class NetworkEntry(BaseModel):
    """A network: its parameters, its default search space, and its tensors with default parameters."""

    description: str
    parameters: Parameters
    search_space: dict[str, Any]
    layers: list[str]
    lanes: bool  # true if its trials train together in lanes, false if each trains alone
    weights: int
    flops: int  # of one image's forward pass
    tensors: list[Tensor]


class DatasetEntry(BaseModel):
    """A data set that a job can name."""

    description: str
    images: int
    shape: list[int]  # channels, height, width
    classes: list[str]
    splits: list[str]
    sha256: str


class Entry(BaseModel):
    """A sampler, a pruner or an optimizer."""

    description: str
    parameters: Parameters


class Catalog(BaseModel):
    """All networks, data sets, samplers, pruners and optimizers by name."""

    networks: dict[str, NetworkEntry]
    datasets: dict[str, DatasetEntry]
    samplers: dict[str, Entry]
    pruners: dict[str, Entry]
    optimizers: dict[str, Entry]


@router.get("/catalog")
def catalog(
    uploaded: UploadedDep,
    batch_size: Annotated[
        int, Query(ge=1, le=4096, description="images per step; the first dimension of tensor shapes")
    ] = 5,
    dataset: Annotated[
        str, Query(max_length=100, description="data set whose image shape and classes the networks get")
    ] = "mnist",
) -> Catalog:
    """List networks, data sets, samplers, pruners and optimizers, with their parameters, ranges and defaults."""
    try:
        images = uploaded.find(dataset)
    except UnknownName as error:
        raise BadInput("?dataset", str(error)) from None
    return Catalog(
        networks=dict(_networks(images, batch_size)),
        datasets={
            name: DatasetEntry(
                description=d.description,
                images=d.size,
                shape=list(d.shape),
                classes=list(d.classes),
                splits=["random", "official"] if d.official_test else ["random"],
                sha256=d.sha256,
            )
            for name, d in {**datasets, **uploaded.newest()}.items()
        },
        samplers={name: _entry(kind) for name, kind in samplers.items()},
        pruners={name: _entry(kind) for name, kind in pruners.items()},
        optimizers={name: _entry(kind) for name, kind in optimizers.items()},
    )


def _entry(kind: type[BaseModel]) -> Entry:
    parameters = {name: field for name, field in describe(kind).items() if name != "name"}
    return Entry(description=(kind.__doc__ or "").strip(), parameters=parameters)


def _networks(images: Dataset, batch_size: int) -> Iterator[tuple[str, NetworkEntry]]:
    """Yield the networks that accept a data set's images; leave out those that need larger images."""
    for name, network in networks.items():
        with suppress(ShapeError):
            yield name, _network(network, images.shape, len(images.classes), batch_size)


def _network(network: Network, shape: Shape, classes: int, batch_size: int) -> NetworkEntry:
    layers = network.layers(shape, classes, network.params())
    return NetworkEntry(
        description=network.description,
        parameters=describe(network.params),
        search_space=TypeAdapter(SearchSpace).dump_python(network.space, mode="json"),
        layers=[str(layer) for layer in layers],
        lanes=not trains_alone(layers),
        weights=parameter_count(layers),
        flops=flop_count(layers, shape),
        tensors=_tensors(layers, shape, batch_size),
    )


def _tensors(layers: list[Layer], shape: Shape, batch_size: int) -> list[Tensor]:
    """Return the input, the weights, and the output of each layer that has weights or changes the shape, in order.

    Names carry numbers if several layers have weights: x, w1, b1, h1, w2, …, y. A matrix has the shape
    [inputs, outputs], the transpose of torch's.
    """
    layers_after_input = layers[1:] if isinstance(layers[0], Flatten) else layers
    entering: Shape = (prod(shape),) if isinstance(layers[0], Flatten) else shape
    trained = sum(isinstance(layer, Linear | Conv2d) for layer in layers)
    tensors = [Tensor(name="x", shape=[batch_size, *entering])]
    number = 0
    for layer, leaving in zip(layers_after_input, shapes(layers_after_input, entering), strict=True):
        if isinstance(layer, Linear | Conv2d):
            number += 1
            mark = str(number) if trained > 1 else ""
            weights = layer.weights()
            matrix = weights["weight"][::-1] if isinstance(layer, Linear) else weights["weight"]
            tensors.append(Tensor(name=f"w{mark}", shape=list(matrix)))
            tensors.append(Tensor(name=f"b{mark}", shape=list(weights["bias"])))
            name = "y" if number == trained else f"h{mark}"
            tensors.append(Tensor(name=name, shape=[batch_size, *leaving]))
        elif isinstance(layer, Wrapped):
            tensors += [Tensor(name=f"{layer.kind}.{name}", shape=list(own)) for name, own in layer.weights().items()]
            tensors.append(Tensor(name=layer.kind, shape=[batch_size, *leaving]))
        elif isinstance(layer, MaxPool2d | Flatten):
            kind = "p" if isinstance(layer, MaxPool2d) else "f"
            tensors.append(Tensor(name=f"{kind}{number}", shape=[batch_size, *leaving]))
    return tensors
