"""Convolutions of lanes: of the images, which all lanes share, and of each lane's activation; and pooling."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ml.lanes.layer import Form, LaneLayer, Slot, ranges
from ml.lanes.minibatch import Minibatch
from ml.lanes.ops import Pooled
from ml.lanes.parameter import Parameter
from ml.layers import Conv2d, MaxPool2d


class Convolution(LaneLayer):
    """The base of convolutions: weight [lanes, outputs, size, size, inputs] and bias [lanes, outputs]."""

    def build(self, layers: Sequence[Conv2d], form: Form) -> Form:
        height, width, inputs = form.shape
        self.inputs = [layer.in_channels for layer in layers]
        self.outputs = [layer.out_channels for layer in layers]
        size, most = layers[0].kernel_size, max(self.outputs)
        weight = torch.zeros(len(layers), most, size, size, inputs)
        self.parameters = [Parameter(weight), Parameter(torch.zeros(len(layers), most))]
        return Form((height - size + 1, width - size + 1, most), ranges(self.outputs))

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
    """A convolution of the images: one convolution with the kernels of all lanes."""

    def forward(self, x: Minibatch) -> Tensor:
        self.batch = x
        weight, bias = self.parameters
        return self.ops.image_convolution(x, weight.value, bias.value)

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        self.ops.image_convolution_gradients(self.batch, delta, *self.parameters)
        return delta


class LaneConvolution(Convolution):
    """A convolution of each lane's activation: one convolution with a group for each lane."""

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        weight, bias = self.parameters
        return self.ops.convolution(x, weight.value, bias.value)

    def backward(self, delta: Tensor | Pooled, *, wanted: bool) -> Tensor:
        pooled = delta if isinstance(delta, Pooled) else Pooled(delta, torch.zeros_like(delta), delta, size=1)
        return self.ops.convolution_gradients(pooled, self.x, *self.parameters, wanted=wanted)


class Pool(LaneLayer):
    """Max pooling: the largest of each block."""

    whole = False  # True if the layer before takes a `Pooled`: only the few places that were largest

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
