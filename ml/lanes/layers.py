"""The table of lane layers by kind of layer, and the lane layers that compute almost nothing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ml.errors import LanesError
from ml.lanes.convolution import ImageConvolution, LaneConvolution, Pool
from ml.lanes.dropout import Dropping
from ml.lanes.layer import Form, LaneLayer, ranges
from ml.lanes.linear import ImageLinear, LaneLinear
from ml.lanes.minibatch import Minibatch
from ml.lanes.ops import Ops
from ml.lanes.wrapped import WrappedModule
from ml.layers import Conv2d, Dropout, Flatten, Layer, Linear, MaxPool2d, ReLU, Shape, Wrapped


class Spread(LaneLayer):
    """The images as an activation of every lane, for a network that begins with neither Linear nor Conv2d."""

    def build(self, layers: Sequence[Any], form: Form) -> Form:
        self.lanes = len(form.places)
        return form

    def forward(self, x: Minibatch) -> Tensor:
        pixels = x.pixels.permute(0, 2, 3, 1).unsqueeze(3)
        return pixels.expand(-1, -1, -1, self.lanes, -1).contiguous()

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        return delta


class Rectifier(LaneLayer):
    """ReLU: max(x, 0), in place, because its input is not needed again."""

    def build(self, layers: Sequence[ReLU], form: Form) -> Form:
        return form

    def forward(self, x: Tensor) -> Tensor:
        self.out = x.clamp_min_(0)
        return self.out

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        dx: Tensor = torch.ops.aten.threshold_backward(delta, self.out, 0)
        return dx


class Rows(LaneLayer):
    """Flatten: from images to rows, which have all features of an image of one lane."""

    def build(self, layers: Sequence[Flatten], form: Form) -> Form:
        self.shape = form.shape
        height, width, channels = form.shape
        pixels = torch.arange(height * width) * channels
        # torch flattens (channel, height, width); these rows are (height, width, channel).
        return Form((height * width * channels,), [(own[:, None] + pixels).flatten() for own in form.places])

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(3, 0, 1, 2, 4).flatten(2)

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        return delta.reshape(*delta.shape[:2], *self.shape).permute(1, 2, 3, 0, 4).contiguous()


class Same(LaneLayer):
    """Flatten for rows, which stay as they are."""

    def build(self, layers: Sequence[Flatten], form: Form) -> Form:
        return form

    def forward(self, x: Tensor) -> Tensor:
        return x

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        return delta


LANE_LAYERS: dict[type[Layer], type[LaneLayer]] = {
    Linear: LaneLinear,
    Conv2d: LaneConvolution,
    ReLU: Rectifier,
    Dropout: Dropping,
    MaxPool2d: Pool,
    Flatten: Rows,
}


def lane_layers(networks: Sequence[Sequence[Layer]], image: Shape, ops: Ops) -> list[tuple[int, LaneLayer]]:
    """Return the layers of lanes for `networks`.

    Args:
        networks: the layers of each network; all have the same kinds.
        image: the shape of an image, (channels, height, width).
        ops: the arithmetic.

    Returns:
        The layers, each with its place in every network, by which weights are named.
    """
    channels, height, width = image
    form = Form((height, width, channels), ranges([channels] * len(networks)))
    columns = list(enumerate(zip(*networks, strict=True)))
    built: list[tuple[int, LaneLayer]] = []
    for place, kind in _kinds([layers for _, layers in columns]):
        if kind is Rows and len(form.shape) == 1:
            kind = Same
        layer = kind(ops, columns[place][1], form)
        form = layer.form
        if isinstance(layer, Pool):
            layer.whole = isinstance(built[-1][1], LaneConvolution)
        built.append((place, layer))
    return built


def _lane_layer(kind: type[Layer]) -> type[LaneLayer]:
    if issubclass(kind, Wrapped):
        return WrappedModule
    if kind not in LANE_LAYERS:
        raise LanesError(
            f"{kind.__name__} does not train yet: derive it from Wrapped, "
            "or write its LaneLayer and add it to LANE_LAYERS"
        )
    return LANE_LAYERS[kind]


def _kinds(columns: Sequence[Sequence[Layer]]) -> list[tuple[int, type[LaneLayer]]]:
    """Return the places of layers, and the layers of lanes to build for them, in the order of the forward pass."""
    kinds = [type(column[0]) for column in columns]
    order = list(range(len(kinds)))
    for i in range(len(kinds) - 1):
        if kinds[order[i]] is ReLU and kinds[order[i + 1]] is MaxPool2d:
            # Pooling first gives the same values and derivatives, and ReLU has a quarter of the work.
            order[i], order[i + 1] = order[i + 1], order[i]
    found = [(place, _lane_layer(kinds[place])) for place in order]
    if kinds[:2] == [Flatten, Linear]:
        found[:2] = [(1, ImageLinear)]
    elif kinds[0] is Conv2d:
        found[0] = (0, ImageConvolution)
    else:
        found.insert(0, (0, Spread))
    return found
