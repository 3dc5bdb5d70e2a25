"""The kinds of layer, as data: a network is a list of these.

A layer is named as torch names it and has the fields that torch's constructor takes, so that `lanes.py` can build the
module, `graph.py` the ONNX node, and the catalog the shapes, all from one declaration and here without torch.
Shapes leave out the batch: (channels, height, width) or (features,).
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, ClassVar

from ml.errors import ChiffreError

Shape = tuple[int, ...]


class ShapeError(ChiffreError):
    """A layer that cannot take the shape it is given."""


class Layer(ABC):
    """One layer of a network."""

    kinds: ClassVar[dict[str, type["Layer"]]] = {}

    def __init_subclass__(cls) -> None:
        Layer.kinds[cls.__name__] = cls

    @property
    def kind(self) -> str:
        """What lanes must have in common at this place: the class, and all but the widths."""
        return type(self).__name__

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """The shape that leaves the layer; ShapeError where `shape` cannot enter it."""

    def weights(self) -> dict[str, Shape]:
        """The trained tensors by torch's names, in torch's layout."""
        return {}

    def flops(self, shape: Shape) -> int:
        """Floating-point operations for one image forward, a multiply-add counting two."""
        return 0


@dataclass(frozen=True)
class Linear(Layer):
    """y = x wᵀ + b."""

    in_features: int
    out_features: int

    def output_shape(self, shape: Shape) -> Shape:
        if shape != (self.in_features,):
            raise ShapeError(f"Linear takes {self.in_features} features, not the shape {list(shape)}")
        return (self.out_features,)

    def weights(self) -> dict[str, Shape]:
        return {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}

    def flops(self, shape: Shape) -> int:
        return 2 * self.in_features * self.out_features


@dataclass(frozen=True)
class Conv2d(Layer):
    """A convolution of stride 1 without padding."""

    in_channels: int
    out_channels: int
    kernel_size: int

    @property
    def kind(self) -> str:
        return f"{super().kind}({self.kernel_size})"

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or shape[0] != self.in_channels or min(shape[1:]) < self.kernel_size:
            raise ShapeError(
                f"Conv2d takes {self.in_channels} channels of at least {self.kernel_size}×{self.kernel_size} pixels, "
                f"not the shape {list(shape)}"
            )
        _, height, width = shape
        return (self.out_channels, height - self.kernel_size + 1, width - self.kernel_size + 1)

    def weights(self) -> dict[str, Shape]:
        kernel = (self.kernel_size, self.kernel_size)
        return {"weight": (self.out_channels, self.in_channels, *kernel), "bias": (self.out_channels,)}

    def flops(self, shape: Shape) -> int:
        return 2 * prod(self.output_shape(shape)) * self.in_channels * self.kernel_size**2


@dataclass(frozen=True)
class MaxPool2d(Layer):
    """The largest of each kernel_size × kernel_size block; a remainder at the edge is left out."""

    kernel_size: int

    @property
    def kind(self) -> str:
        return f"{super().kind}({self.kernel_size})"

    def output_shape(self, shape: Shape) -> Shape:
        if len(shape) != 3 or min(shape[1:]) < self.kernel_size:
            raise ShapeError(
                f"MaxPool2d takes at least {self.kernel_size}×{self.kernel_size} pixels, not the shape {list(shape)}"
            )
        channels, height, width = shape
        return (channels, height // self.kernel_size, width // self.kernel_size)


@dataclass(frozen=True)
class ReLU(Layer):
    """max(x, 0)."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True)
class Dropout(Layer):
    """While training, a share `p` of what enters becomes 0 and the rest grows by 1 / (1 - p); else nothing changes.

    Lanes may differ in p, so it is no part of the kind.
    """

    p: float

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True)
class Flatten(Layer):
    """All features of an image in one row."""

    def output_shape(self, shape: Shape) -> Shape:
        return (prod(shape),)


class Wrapped(Layer):
    """A layer that is any torch module: derive a frozen dataclass whose fields are what its constructor takes.

    A network that has one trains each trial alone, by torch's own derivatives, and torch exports it. What it needs
    beside the fields: `output_shape`, the shapes of its `weights`, and where the module is, as a dotted path, unless it
    is torch.nn's class of the same name.
    """

    module: ClassVar[str] = ""


def trains_alone(layers: list[Layer]) -> bool:
    """Whether trials with these layers train each alone, not as lanes."""
    return any(isinstance(layer, Wrapped) for layer in layers)


def shapes(layers: list[Layer], shape: Shape) -> list[Shape]:
    """The shape that leaves each layer when `shape` enters the first; ShapeError where one does not fit."""
    found = []
    for layer in layers:
        shape = layer.output_shape(shape)
        found.append(shape)
    return found


def parameter_count(layers: list[Layer]) -> int:
    """The number of trained weights."""
    return sum(prod(shape) for layer in layers for shape in layer.weights().values())


def flop_count(layers: list[Layer], shape: Shape) -> int:
    """Floating-point operations for one image forward."""
    entering = [shape, *shapes(layers, shape)]
    return sum(layer.flops(s) for layer, s in zip(layers, entering, strict=False))


def to_json(layers: list[Layer]) -> list[dict[str, Any]]:
    """The layers as a checkpoint keeps them."""
    return [{"kind": type(layer).__name__, **asdict(layer)} for layer in layers]  # type: ignore[call-overload]


def from_json(rows: list[dict[str, Any]]) -> list[Layer]:
    """The layers that `to_json` wrote."""
    return [Layer.kinds[row["kind"]](**{k: v for k, v in row.items() if k != "kind"}) for row in rows]
