"""The layers of lanes: each kind of layer for all lanes at once, forward and backward.

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
from torch.func import functional_call

from ml.batch import Batch
from ml.errors import LanesError
from ml.hyper import Hyper
from ml.lane_parameter import Parameter
from ml.layers import Conv2d, Dropout, Flatten, Layer, Linear, MaxPool2d, ReLU, Shape, Wrapped
from ml.modules import torch_layer
from ml.noise import GOLDEN, keys_of, places_of
from ml.ops import Ops, Pooled

Slot = Literal["value", "first", "second", "average"]  # which tensor of a parameter

# Up to this batch, and from this width, a gradient is made row by row inside the optimizer; else by one matrix product.
# `python -m benchmarks.rank` measures where that is faster.
RANK_BATCH = 16
RANK_WIDTH = 256


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


class Spread(LaneLayer):
    """The images, for a network that begins with neither Linear nor Conv2d: each lane gets them as an activation."""

    def build(self, layers: Sequence[Any], form: Form) -> Form:
        self.lanes = len(form.places)
        return form

    def forward(self, x: Batch) -> Tensor:
        pixels = x.pixels.permute(0, 2, 3, 1).unsqueeze(3)
        return pixels.expand(-1, -1, -1, self.lanes, -1).contiguous()

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        return delta


class ImageLinear(LaneLayer):
    """A linear layer on the images: one wide product, the lanes side by side without padding."""

    def build(self, layers: Sequence[Linear], form: Form) -> Form:
        self.widths = [layer.out_features for layer in layers]
        self.even = len(set(self.widths)) == 1
        weight = torch.zeros(layers[0].in_features + 1, sum(self.widths))
        self.parameters = [Parameter(weight, torch.tensor(self.widths))]
        return Form((max(self.widths),), _ranges(self.widths))

    def forward(self, x: Batch) -> Tensor:
        self.batch = x
        out = self.ops.image_linear(x, self.parameters[0].value)
        if self.even:
            return out.view(len(x), -1, self.widths[0]).transpose(0, 1)
        rows = out.new_zeros(len(self.widths), len(x), max(self.widths))
        for row, own in zip(rows, torch.split(out, self.widths, 1), strict=True):
            row[:, : own.shape[1]] = own
        return rows

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        if self.even:
            self.delta = delta.transpose(0, 1).reshape(len(self.batch), -1)
        else:
            self.delta = torch.cat([own[:, :width] for own, width in zip(delta, self.widths, strict=True)], 1)
        return delta

    def step(self, hyper: Hyper) -> None:
        self.ops.image_linear_update(self.batch, self.delta, self.parameters[0], hyper)

    def put(self, lane: int, slot: Slot, tensors: dict[str, Tensor]) -> None:
        own = self._own(lane, slot)
        own[:-1], own[-1] = tensors["weight"].t(), tensors["bias"]

    def take(self, lane: int, slot: Slot) -> dict[str, Tensor]:
        own = self._own(lane, slot)
        return {"weight": own[:-1].t(), "bias": own[-1]}

    def _own(self, lane: int, slot: Slot) -> Tensor:
        first = sum(self.widths[:lane])
        whole: Tensor = getattr(self.parameters[0], slot)
        return whole[:, first : first + self.widths[lane]]


class Convolution(LaneLayer):
    """What convolutions have in common: weight [lanes, outputs, size, size, inputs] and bias [lanes, outputs]."""

    def build(self, layers: Sequence[Conv2d], form: Form) -> Form:
        height, width, inputs = form.shape
        self.inputs = [layer.in_channels for layer in layers]
        self.outputs = [layer.out_channels for layer in layers]
        size, most = layers[0].kernel_size, max(self.outputs)
        weight = torch.zeros(len(layers), most, size, size, inputs)
        self.parameters = [Parameter(weight), Parameter(torch.zeros(len(layers), most))]
        return Form((height - size + 1, width - size + 1, most), _ranges(self.outputs))

    def put(self, lane: int, slot: Slot, tensors: dict[str, Tensor]) -> None:
        weight, bias = self._own(lane, slot)
        weight.copy_(tensors["weight"].permute(0, 2, 3, 1))
        bias.copy_(tensors["bias"])

    def take(self, lane: int, slot: Slot) -> dict[str, Tensor]:
        weight, bias = self._own(lane, slot)
        return {"weight": weight.permute(0, 3, 1, 2), "bias": bias}

    def _own(self, lane: int, slot: Slot) -> tuple[Tensor, Tensor]:
        weight, bias = (getattr(parameter, slot)[lane, : self.outputs[lane]] for parameter in self.parameters)
        return weight[..., : self.inputs[lane]], bias


class ImageConvolution(Convolution):
    """A convolution of the images: one convolution with all lanes' kernels."""

    def forward(self, x: Batch) -> Tensor:
        self.batch = x
        weight, bias = self.parameters
        return self.ops.image_convolution(x, weight.value, bias.value)

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        self.ops.image_convolution_gradients(self.batch, delta, *self.parameters)
        return delta


class LaneConvolution(Convolution):
    """A convolution of each lane's own activation: one convolution in as many groups."""

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        weight, bias = self.parameters
        return self.ops.convolution(x, weight.value, bias.value)

    def backward(self, delta: Tensor | Pooled, *, wanted: bool) -> Tensor:
        pooled = delta if isinstance(delta, Pooled) else Pooled(delta, torch.zeros_like(delta), delta, size=1)
        return self.ops.convolution_gradients(pooled, self.x, *self.parameters, wanted=wanted)


class LaneLinear(LaneLayer):
    """A linear layer on each lane's own rows: one batched product, the bias as a last row of the weight."""

    def build(self, layers: Sequence[Linear], form: Form) -> Form:
        self.places = form.places
        self.widths = [layer.out_features for layer in layers]
        self.parameters = [Parameter(torch.zeros(len(layers), form.shape[0] + 1, max(self.widths)))]
        return Form((max(self.widths),), _ranges(self.widths))

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        weight = self.parameters[0].value
        return torch.baddbmm(weight[:, -1:], x, weight[:, :-1])

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        (weight,) = self.parameters
        self.delta = delta
        if not self._by_rank:
            torch.bmm(self.x.transpose(1, 2), delta, out=weight.gradient[:, :-1])
            torch.sum(delta, 1, out=weight.gradient[:, -1])
        return torch.bmm(delta, weight.value[:, :-1].transpose(1, 2)) if wanted else delta

    def step(self, hyper: Hyper) -> None:
        if self._by_rank:
            self.ops.rank_update(self.x, self.delta, self.parameters[0], hyper)
        else:
            super().step(hyper)

    def put(self, lane: int, slot: Slot, tensors: dict[str, Tensor]) -> None:
        own = self._own(lane, slot)
        own[self.places[lane]], own[-1] = tensors["weight"].t().to(own), tensors["bias"]

    def take(self, lane: int, slot: Slot) -> dict[str, Tensor]:
        own = self._own(lane, slot)
        return {"weight": own[self.places[lane]].t(), "bias": own[-1]}

    def _own(self, lane: int, slot: Slot) -> Tensor:
        whole: Tensor = getattr(self.parameters[0], slot)
        return whole[lane, :, : self.widths[lane]]

    @property
    def _by_rank(self) -> bool:
        return self.delta.shape[1] <= RANK_BATCH and self.delta.shape[2] >= RANK_WIDTH


class Rectifier(LaneLayer):
    """max(x, 0), in place: what was there is not needed again."""

    def build(self, layers: Sequence[ReLU], form: Form) -> Form:
        return form

    def forward(self, x: Tensor) -> Tensor:
        self.out = x.clamp_min_(0)
        return self.out

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        asked: Tensor = torch.ops.aten.threshold_backward(delta, self.out, 0)
        return asked


class Dropping(LaneLayer):
    """Dropout, in place. A mask is named by the lane's own seed and steps, and by its features as torch counts them."""

    def build(self, layers: Sequence[Dropout], form: Form) -> Form:
        self.shares = torch.tensor([layer.p for layer in layers], dtype=torch.float64)
        self.numbers = torch.from_numpy(places_of(_numbers(form)).view(np.int32))
        self.keys: dict[int, Tensor] = {}  # by the size of the minibatch
        self.mask = torch.empty(0)
        return form

    def move(self, device: torch.device, dtype: torch.dtype, *, averaging: bool = False) -> None:
        self.shares, self.numbers = self.shares.to(device), self.numbers.to(device)

    def draw_from(self, place: int, seeds: np.ndarray, steps: np.ndarray) -> None:
        self.seeds, self.steps = seeds + np.array([place], np.uint32) * GOLDEN, steps

    def draw(self, rows: int) -> None:
        keys = torch.from_numpy(keys_of(self.seeds, self.steps, rows).view(np.int32))
        if rows not in self.keys:
            self.keys[rows] = torch.empty_like(keys, device=self.numbers.device)
        self.keys[rows].copy_(keys, non_blocking=True)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keys = self.keys[x.shape[1] if x.dim() == 3 else x.shape[0]]
        shape = (*keys.shape, self.numbers.shape[1])
        if self.mask.shape != shape or self.mask.dtype != x.dtype:
            self.mask = x.new_empty(shape)
        self.ops.drop(keys, self.numbers, self.shares, self.mask)
        return self._masked(x)

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        return self._masked(delta)

    def _masked(self, x: Tensor) -> Tensor:
        mask = self.mask
        if x.dim() == 5:
            mask = mask.view(*mask.shape[:2], *x.shape[1:3], x.shape[4]).permute(1, 2, 3, 0, 4)
        return x.mul_(mask)


def _numbers(form: Form) -> np.ndarray:
    """The number of each of a lane's features in torch's order, [lanes, features of the form]; of padding, 0."""
    *sides, width = form.shape
    pixels = np.arange(int(np.prod(sides)))
    numbers = np.zeros((len(form.places), len(pixels), width), np.uint32)
    for own, places in zip(numbers, form.places, strict=True):
        own[:, places.numpy()] = pixels[:, None] + np.arange(len(places)) * len(pixels)
    return numbers.reshape(len(numbers), -1)


class Pool(LaneLayer):
    """The largest of each block."""

    whole = False  # whether what comes before takes a Pooled: the few places that were largest, and no more

    def build(self, layers: Sequence[MaxPool2d], form: Form) -> Form:
        self.size = layers[0].kernel_size
        height, width, channels = form.shape
        return Form((height // self.size, width // self.size, channels), form.places)

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        out, self.place = self.ops.pool(x, self.size)
        return out

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor | Pooled:
        pooled = Pooled(delta, self.place, self.x, self.size)
        return pooled if self.whole else self.ops.pool_gradient(pooled)


class Rows(LaneLayer):
    """From images to rows: all features of an image of one lane."""

    def build(self, layers: Sequence[Flatten], form: Form) -> Form:
        self.shape = form.shape
        height, width, channels = form.shape
        pixels = torch.arange(height * width) * channels
        # torch flattens (channel, height, width), these rows are (height, width, channel).
        return Form((height * width * channels,), [(own[:, None] + pixels).flatten() for own in form.places])

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(3, 0, 1, 2, 4).flatten(2)

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        return delta.reshape(*delta.shape[:2], *self.shape).permute(1, 2, 3, 0, 4).contiguous()


class Same(LaneLayer):
    """Rows that are flattened again."""

    def build(self, layers: Sequence[Flatten], form: Form) -> Form:
        return form

    def forward(self, x: Tensor) -> Tensor:
        return x

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        return delta


class WrappedModule(LaneLayer):
    """A torch module, by torch's own derivatives, of the one lane there is."""

    def build(self, layers: Sequence[Wrapped], form: Form) -> Form:
        (layer,) = layers
        with torch.random.fork_rng(devices=[]):  # the weights that it draws are overwritten
            self.module = torch_layer(layer)
        self.parameters = [Parameter(weight.detach().unsqueeze(0)) for weight in self.module.parameters()]
        shape = layer.output_shape(_turned(form.shape, -1))
        return Form(_turned(shape, 1), _ranges([shape[0]]))

    def move(self, device: torch.device, dtype: torch.dtype, *, averaging: bool = False) -> None:
        super().move(device, dtype, averaging=averaging)
        self.module.to(device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        self.module.train(self.training)
        self.x = _to_torch(x).detach().requires_grad_(self.training)
        self.weights = {name: own.detach().requires_grad_(self.training) for name, own in self._own("value").items()}
        with torch.set_grad_enabled(self.training):
            self.out = functional_call(self.module, self.weights, self.x)
        return _from_torch(self.out.detach()).clone()  # which the next layer may change

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        sources = [self.x, *self.weights.values()]
        asked, *given = torch.autograd.grad(self.out, sources, _to_torch(delta), materialize_grads=True)
        for parameter, gradient in zip(self.parameters, given, strict=True):
            parameter.gradient.copy_(gradient.unsqueeze(0))
        return _from_torch(asked)

    def put(self, lane: int, slot: Slot, tensors: dict[str, Tensor]) -> None:
        for name, own in {**self._own(slot), **self._buffers(slot)}.items():
            own.copy_(tensors[name])

    def take(self, lane: int, slot: Slot) -> dict[str, Tensor]:
        return {**self._own(slot), **self._buffers(slot)}

    def _own(self, slot: Slot) -> dict[str, Tensor]:
        names = (name for name, _ in self.module.named_parameters())
        return {name: getattr(parameter, slot)[0] for name, parameter in zip(names, self.parameters, strict=True)}

    def _buffers(self, slot: Slot) -> dict[str, Tensor]:
        """What the module keeps beside weights, such as running means; an optimizer knows nothing of it."""
        kept = self.module.state_dict() if slot in ("value", "average") else {}
        return {name: buffer for name, buffer in self.module.named_buffers() if name in kept}


def _turned(shape: Shape, by: int) -> Shape:
    """The shape of an image with its channels first (-1) or last (1), as they were not; of features, the same."""
    return shape if len(shape) == 1 else (*shape[by:], *shape[:by])


def _to_torch(x: Tensor) -> Tensor:
    """The activation of one lane, as torch's modules take it."""
    return x[0] if x.dim() == 3 else x.squeeze(3).permute(0, 3, 1, 2)


def _from_torch(x: Tensor) -> Tensor:
    """What `_to_torch` was given."""
    return x.unsqueeze(0) if x.dim() == 2 else x.permute(0, 2, 3, 1).unsqueeze(3).contiguous()


def _ranges(widths: Sequence[int]) -> list[Tensor]:
    return [torch.arange(width) for width in widths]


LANE_LAYERS: dict[type[Layer], type[LaneLayer]] = {
    Linear: LaneLinear,
    Conv2d: LaneConvolution,
    ReLU: Rectifier,
    Dropout: Dropping,
    MaxPool2d: Pool,
    Flatten: Rows,
}


def lane_layers(networks: Sequence[Sequence[Layer]], image: Shape, ops: Ops) -> list[tuple[int, LaneLayer]]:
    """The layers of `networks`, whose layers are of the same kinds, for images (channels, height, width).

    Each comes with the place of its like in every network, by which weights are named.
    """
    channels, height, width = image
    form = Form((height, width, channels), _ranges([channels] * len(networks)))
    columns = list(enumerate(zip(*networks, strict=True)))
    built: list[tuple[int, LaneLayer]] = []
    for place, kind in _kinds([layers for _, layers in columns]):
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
    """Which place is built as what, in the order of the forward pass."""
    kinds = [type(column[0]) for column in columns]
    order = list(range(len(kinds)))
    for i in range(len(kinds) - 1):
        if kinds[order[i]] is ReLU and kinds[order[i + 1]] is MaxPool2d:
            # The largest of max(x, 0) is max(the largest of x, 0), and derivatives agree: a quarter of the work.
            order[i], order[i + 1] = order[i + 1], order[i]
    found = [(place, _lane_layer(kinds[place])) for place in order]
    if kinds[:2] == [Flatten, Linear]:
        found[:2] = [(1, ImageLinear)]
    elif kinds[0] is Conv2d:
        found[0] = (0, ImageConvolution)
    else:
        found.insert(0, (0, Spread))
    seen_rows = kinds[:2] == [Flatten, Linear]
    for i, (place, kind) in enumerate(found):
        if kind is Rows and seen_rows:
            found[i] = (place, Same)
        seen_rows = seen_rows or kind is Rows
    return found
