"""The arithmetic of lanes by compiled kernels, on a CPU."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ml.kernels import loops
from ml.kernels.noise import kept
from ml.lanes.coefficients import Hyper
from ml.lanes.minibatch import Minibatch
from ml.lanes.ops import Pooled
from ml.lanes.parameter import Parameter


class KernelOps:
    """The arithmetic on a CPU."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, tuple[int, ...], torch.dtype], Tensor] = {}

    def image_linear(self, batch: Minibatch, weight: Tensor) -> Tensor:
        out = weight.new_empty(len(batch), weight.shape[1])
        loops.wide_forward(weight.numpy(), *batch.lit, out.numpy())
        return out

    def image_linear_update(self, batch: Minibatch, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        state = (t.numpy() for t in (weight.value, weight.exp_avg, weight.exp_avg_sq))
        settings = (weight.ends, hyper.bounds, hyper.still, *hyper.rows())
        loops.wide_update(*state, weight.asleep, delta.contiguous().numpy(), *batch.by_pixel, *settings)

    def image_convolution(self, batch: Minibatch, weight: Tensor, bias: Tensor) -> Tensor:
        lanes, outputs, size, _, channels = weight.shape
        runs = weight.flip(2, 3).permute(4, 2, 3, 0, 1).contiguous().view(channels, size, size, -1)
        high, wide = (side - size + 1 for side in batch.images.shape[2:])
        out = self._buffer("convolved", (len(batch), high, wide, lanes * outputs), weight.dtype)
        out.copy_(bias.view(1, 1, 1, -1).expand_as(out))
        loops.image_convolution(batch.images.numpy(), batch.indices, batch.scale, runs.numpy(), out.numpy(), False)
        return out.view(*out.shape[:3], lanes, outputs)

    def image_convolution_gradients(self, batch: Minibatch, delta: Tensor, weight: Parameter, bias: Parameter) -> None:
        lanes, outputs, size, _, channels = weight.value.shape
        runs = delta.new_zeros(channels, size, size, lanes * outputs)
        flat = delta.reshape(*delta.shape[:3], -1)
        loops.image_convolution(batch.images.numpy(), batch.indices, batch.scale, runs.numpy(), flat.numpy(), True)
        runs = runs.view(channels, size, size, lanes, outputs).permute(3, 4, 1, 2, 0)
        weight.gradient.copy_(runs.flip(2, 3))
        loops.column_sums(flat.numpy(), bias.arrays[1].reshape(-1))

    def convolution(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        lanes, outputs = bias.shape
        kernels_first = weight.flatten(0, 1).permute(0, 3, 1, 2)
        out = functional.conv2d(x.flatten(3).permute(0, 3, 1, 2), kernels_first, bias.flatten(), groups=lanes)
        return out.permute(0, 2, 3, 1).reshape(len(x), *out.shape[2:], lanes, outputs)

    def convolution_gradients(
        self, pooled: Pooled, x: Tensor, weight: Parameter, bias: Parameter, *, wanted: bool
    ) -> Tensor:
        lanes, outputs, size, _, inputs = weight.value.shape
        run = size * inputs
        padded = functional.pad(weight.value.reshape(lanes, outputs, size, run), (0, -run % 8))
        gradient = torch.empty_like(padded)
        dx = self._buffer("convolution gradient", tuple(x.shape), x.dtype)
        deltas = (t.contiguous().numpy() for t in (pooled.delta, pooled.place))
        tensors = (x.contiguous(), padded, dx, gradient, bias.gradient)
        loops.convolution_gradients(*deltas, pooled.size, *(t.numpy() for t in tensors))
        weight.gradient.copy_(gradient[..., :run].reshape(weight.value.shape))
        return dx

    def pool(self, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
        flat = x.reshape(*x.shape[:3], -1)
        shape = (x.shape[0], x.shape[1] // size, x.shape[2] // size)
        out, place = (x.new_empty(*shape, flat.shape[3]) for _ in range(2))
        loops.pool(flat.numpy(), size, out.numpy(), place.numpy())
        return out.view(*shape, *x.shape[3:]), place.view(*shape, *x.shape[3:])

    def pool_gradient(self, pooled: Pooled) -> Tensor:
        dx = self._buffer("pool gradient", tuple(pooled.x.shape), pooled.x.dtype)
        flat = (t.reshape(*t.shape[:3], -1).numpy() for t in (pooled.delta, pooled.place))
        loops.pool_gradient(*flat, pooled.size, dx.view(*dx.shape[:3], -1).numpy())
        return dx

    def rank_update(self, x: Tensor, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        tensors = (x.contiguous(), delta.contiguous(), weight.value, weight.exp_avg, weight.exp_avg_sq)
        loops.rank_update(*(t.numpy() for t in tensors), *hyper.rows(), hyper.bounds)

    def update(self, parameter: Parameter, hyper: Hyper) -> None:
        loops.lane_update(*parameter.arrays, hyper.bounds, *hyper.rows())

    def cross_entropy(self, outputs: Tensor, labels: Tensor, smoothing: Tensor | None) -> tuple[Tensor, Tensor]:
        losses, delta = outputs.new_empty(len(outputs)), torch.empty_like(outputs)
        common = torch.zeros_like(losses) if smoothing is None else smoothing
        loops.cross_entropy(*(t.numpy() for t in (outputs, labels, common, losses, delta)))
        return losses, delta

    def drop(self, keys: Tensor, places: Tensor, shares: Tensor, mask: Tensor) -> None:
        kept(keys.numpy().view(np.uint32), places.numpy().view(np.uint32), shares.numpy(), mask.numpy())

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory that is used again every step: new megabytes cost a page fault every 4 KiB."""
        key = (name, shape, dtype)
        if key not in self._buffers:
            self._buffers[key] = torch.empty(shape, dtype=dtype)
        return self._buffers[key]
