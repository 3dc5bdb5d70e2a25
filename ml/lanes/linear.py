"""Linear layers of lanes: of the images, which all lanes share, and of each lane's rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ml.lanes.coefficients import Hyper
from ml.lanes.layer import Form, LaneLayer, Slot, ranges
from ml.lanes.minibatch import Minibatch
from ml.lanes.parameter import Parameter
from ml.layers import Linear

# Up to this batch size and from this width on, a gradient is computed row by row inside the optimizer, else by one
# matrix product. `python -m benchmarks.rank` measures the sizes at which that is faster.
RANK_BATCH = 16
RANK_WIDTH = 256


class ImageLinear(LaneLayer):
    """A linear layer on the images: one wide matrix product, with the lanes side by side and without padding."""

    def build(self, layers: Sequence[Linear], form: Form) -> Form:
        self.widths = [layer.out_features for layer in layers]
        self.even = len(set(self.widths)) == 1
        weight = torch.zeros(layers[0].in_features + 1, sum(self.widths))
        self.parameters = [Parameter(weight, torch.tensor(self.widths))]
        return Form((max(self.widths),), ranges(self.widths))

    def forward(self, x: Minibatch) -> Tensor:
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


class LaneLinear(LaneLayer):
    """A linear layer on each lane's rows: one batched matrix product; the bias is the last row of the weight."""

    def build(self, layers: Sequence[Linear], form: Form) -> Form:
        self.places = form.places
        self.widths = [layer.out_features for layer in layers]
        self.parameters = [Parameter(torch.zeros(len(layers), form.shape[0] + 1, max(self.widths)))]
        return Form((max(self.widths),), ranges(self.widths))

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
