"""A torch module as a layer of a single lane."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import functional_call

from ml.lanes.layer import Form, LaneLayer, Slot, ranges
from ml.lanes.parameter import Parameter
from ml.layers import Shape, Wrapped
from ml.network.modules import torch_layer


class WrappedModule(LaneLayer):
    """A torch module of a single lane, with the derivatives of torch's autograd."""

    def build(self, layers: Sequence[Wrapped], form: Form) -> Form:
        (layer,) = layers
        with torch.random.fork_rng(devices=[]):  # the module draws weights, which are overwritten later
            self.module = torch_layer(layer)
        self.parameters = [Parameter(weight.detach().unsqueeze(0)) for weight in self.module.parameters()]
        shape = layer.output_shape(_turned(form.shape, -1))
        return Form(_turned(shape, 1), ranges([shape[0]]))

    def move(self, device: torch.device, dtype: torch.dtype, *, averaging: bool = False) -> None:
        super().move(device, dtype, averaging=averaging)
        self.module.to(device, dtype)

    def forward(self, x: Tensor) -> Tensor:
        self.module.train(self.training)
        self.x = _to_torch(x).detach().requires_grad_(self.training)
        self.weights = {name: own.detach().requires_grad_(self.training) for name, own in self._own("value").items()}
        with torch.set_grad_enabled(self.training):
            self.out = functional_call(self.module, self.weights, self.x)
        return _from_torch(self.out.detach()).clone()  # the next layer may change it in place

    def backward(self, delta: Tensor, *, wanted: bool) -> Tensor:
        sources = [self.x, *self.weights.values()]
        dx, *gradients = torch.autograd.grad(self.out, sources, _to_torch(delta), materialize_grads=True)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.gradient.copy_(gradient.unsqueeze(0))
        return _from_torch(dx)

    def put(self, lane: int, slot: Slot, tensors: dict[str, Tensor]) -> None:
        for name, own in {**self._own(slot), **self._buffers(slot)}.items():
            own.copy_(tensors[name].reshape(own.shape))  # earlier releases stored a single number as a list of one

    def take(self, lane: int, slot: Slot) -> dict[str, Tensor]:
        return {**self._own(slot), **self._buffers(slot)}

    def _own(self, slot: Slot) -> dict[str, Tensor]:
        names = (name for name, _ in self.module.named_parameters())
        return {name: getattr(parameter, slot)[0] for name, parameter in zip(names, self.parameters, strict=True)}

    def _buffers(self, slot: Slot) -> dict[str, Tensor]:
        """Return the module's buffers, such as running means, which no optimizer changes."""
        kept = self.module.state_dict() if slot in ("value", "average") else {}
        return {name: buffer for name, buffer in self.module.named_buffers() if name in kept}


def _turned(shape: Shape, by: int) -> Shape:
    """Return the shape of an image with its channels moved to the front (-1) or the end (1); features stay."""
    return shape if len(shape) == 1 else (*shape[by:], *shape[:by])


def _to_torch(x: Tensor) -> Tensor:
    """Return the activation of one lane as torch's modules take it."""
    return x[0] if x.dim() == 3 else x.squeeze(3).permute(0, 3, 1, 2)


def _from_torch(x: Tensor) -> Tensor:
    """Return an activation of torch's modules as that of one lane; the inverse of `_to_torch`."""
    return x.unsqueeze(0) if x.dim() == 2 else x.permute(0, 2, 3, 1).unsqueeze(3).contiguous()
