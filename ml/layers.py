"""The kinds of layer, as data: a network is a list of these.

A layer has torch's name and the fields of torch's constructor. From this one declaration `ml/lanes` builds the torch
module, `ml/network/onnx_graph.py` the ONNX node, and the catalog the shapes; nothing here imports torch.
Shapes leave out the batch: (channels, height, width) or (features,).
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, ClassVar

from ml.errors import ChiffreError

Shape = tuple[int, ...]


class ShapeError(ChiffreError):
    """A shape that a layer cannot take."""


class Layer(ABC):
    """One layer of a network."""

    kinds: ClassVar[dict[str, type["Layer"]]] = {}

    def __init_subclass__(cls) -> None:
        Layer.kinds[cls.__name__] = cls

    @property
    def kind(self) -> str:
        """Everything about a layer except its widths; lanes must have the same kinds to train as one module."""
        return type(self).__name__

    @abstractmethod
    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of the output for an input of `shape`.

        Raises:
            ShapeError: if the layer cannot take `shape`.
        """

    def weights(self) -> dict[str, Shape]:
        """Return the shapes of the trained tensors by torch's names, in torch's layout."""
        return {}

    def flops(self, shape: Shape) -> int:
        """Return the floating-point operations of one image's forward pass; a multiply-add counts as two."""
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
    """A convolution with stride 1 and no padding."""

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
    """The maximum of each kernel_size × kernel_size block; a remainder at the edge is dropped."""

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
    """In training, sets a share `p` of the inputs to 0 and multiplies the others by 1 / (1 - p).

    Lanes may differ in p, so p is not in the kind.
    """

    p: float

    def output_shape(self, shape: Shape) -> Shape:
        return shape


@dataclass(frozen=True)
class Flatten(Layer):
    """Puts all features of an image in one row."""

    def output_shape(self, shape: Shape) -> Shape:
        return (prod(shape),)


class Wrapped(Layer):
    """A layer that can be any torch module: derive a frozen dataclass with the fields of the module's constructor.

    Define `output_shape`, the shapes of `weights`, and the import path of the module in `module`; an empty path means
    torch.nn's class of the same name. A network with such a layer trains each trial alone. Torch computes its
    gradients and exports it to ONNX.
    """

    module: ClassVar[str] = ""


def trains_alone(layers: list[Layer]) -> bool:
    """Return whether trials with these layers train one at a time instead of as lanes."""
    return any(isinstance(layer, Wrapped) for layer in layers)


def shapes(layers: list[Layer], shape: Shape) -> list[Shape]:
    """Return the output shape of each layer for an input of `shape`.

    Raises:
        ShapeError: if a layer cannot take its input.
    """
    found = []
    for layer in layers:
        shape = layer.output_shape(shape)
        found.append(shape)
    return found


def parameter_count(layers: list[Layer]) -> int:
    """Return the number of trained weights."""
    return sum(prod(shape) for layer in layers for shape in layer.weights().values())


def flop_count(layers: list[Layer], shape: Shape) -> int:
    """Return the floating-point operations of one image's forward pass."""
    entering = [shape, *shapes(layers, shape)]
    return sum(layer.flops(s) for layer, s in zip(layers, entering, strict=False))


def to_json(layers: list[Layer]) -> list[dict[str, Any]]:
    """Return the layers as JSON for a checkpoint's card."""
    return [{"kind": type(layer).__name__, **asdict(layer)} for layer in layers]  # type: ignore[call-overload]


def from_json(rows: list[dict[str, Any]]) -> list[Layer]:
    """Return the layers that `to_json` wrote."""
    return [Layer.kinds[row["kind"]](**{k: v for k, v in row.items() if k != "kind"}) for row in rows]
