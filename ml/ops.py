"""What lanes compute, twice: by compiled kernels on a CPU, by torch's operations anywhere else."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ml import kernels
from ml.hyper import Hyper
from ml.noise import HIGHEST, WORD, kept, mixed
from ml.optimizers import ADAM_BETAS, ADAM_EPSILON

aten = torch.ops.aten

Listed = tuple[np.ndarray, np.ndarray, np.ndarray]  # lists: how long each is, what is listed, and a value to each


@dataclass
class Batch:
    """A minibatch: some images of a data set, or all of them."""

    images: Tensor  # uint8 [n, channels, height, width]
    labels: Tensor  # int64 [n]
    indices: np.ndarray | None  # int64 [batch]; None for all n, in order
    dtype: torch.dtype = torch.float32

    def of(self, each: Tensor, out: Tensor | None = None) -> Tensor:
        """The minibatch's own of what there is one of for each image; into `out`, where it is given."""
        return each if self.places is None else torch.index_select(each, 0, self.places, out=out)

    @cached_property
    def places(self) -> Tensor | None:
        """The indices, where the images are."""
        if self.indices is None:
            return None
        return torch.from_numpy(self.indices).to(self.images.device, non_blocking=True)

    @cached_property
    def pixels(self) -> Tensor:
        """The images as a network takes them: [batch, channels, height, width] in 0..1."""
        return self.of(self.images).to(self.dtype).div_(255)

    @property
    def scale(self) -> np.ndarray:
        """What each of the 256 pixels stands for."""
        return _scale(self.dtype)

    @cached_property
    def lit(self) -> Listed:
        """Which pixels of each image are lit, as `kernels.lit_pixels` lists them."""
        flat = self.images.numpy().reshape(len(self.images), -1)
        listed = _lists(len(self), flat.shape[1], self.scale.dtype)
        kernels.lit_pixels(flat, self.indices, self.scale, *listed)
        return listed

    @cached_property
    def by_pixel(self) -> Listed:
        """Which images are lit at each pixel, as `kernels.by_pixel` lists them."""
        listed = _lists(self.lit[1].shape[1] + 1, len(self), self.scale.dtype)
        kernels.by_pixel(*self.lit, *listed)
        return listed

    def __len__(self) -> int:
        return len(self.labels if self.indices is None else self.indices)


def _lists(number: int, longest: int, dtype: np.dtype) -> Listed:
    """Room for so many lists."""
    return np.empty(number, np.int64), np.empty((number, longest), np.int64), np.empty((number, longest), dtype)


@cache
def _scale(dtype: torch.dtype) -> np.ndarray:
    scale: np.ndarray = (torch.arange(256, dtype=dtype) / 255).numpy()
    return scale


@dataclass
class Parameter:
    """A trained tensor of all lanes, and what their optimizers remember of it.

    value is [lanes, …], or [rows, columns] of all lanes side by side where `columns` names each lane's share.
    """

    value: Tensor
    columns: Tensor | None = None  # int64 [lanes]: how many columns each lane has
    gradient: Tensor = field(init=False)
    first: Tensor = field(init=False)  # Adam's mean, or SGD's velocity
    second: Tensor = field(init=False)  # Adam's mean square
    average: Tensor = field(init=False)  # of the value over the steps; empty where no lane has one

    def __post_init__(self) -> None:
        if self.columns is None:
            self.gradient = torch.zeros_like(self.value)
        self.average = self.value.new_empty(0)
        self.first = torch.zeros_like(self.value)
        self.second = torch.zeros_like(self.value)
        for derived in ("arrays", "asleep", "ends", "lane_of"):
            self.__dict__.pop(derived, None)

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """Value, gradient, first and second as arrays [lanes, n] that share memory, on a CPU."""
        return [t.view(len(t), -1).numpy() for t in (self.value, self.gradient, self.first, self.second)]

    @cached_property
    def asleep(self) -> np.ndarray:
        """Rows whose moments are all 0, bool [rows]: those of pixels that were never lit. The kernel keeps it up."""
        found: np.ndarray = (~(self.first.any(1) | self.second.any(1))).numpy()
        return found

    @cached_property
    def ends(self) -> np.ndarray:
        """Where each lane's columns end, int64 [lanes + 1]."""
        columns = [] if self.columns is None else self.columns.tolist()
        return np.cumsum([0, *columns])

    @cached_property
    def lane_of(self) -> Tensor:
        """The lane that each column belongs to, int64 [columns]."""
        widths = np.diff(self.ends)
        return torch.from_numpy(np.repeat(np.arange(len(widths)), widths)).to(self.value.device)

    def move(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move all of it to a device and a type."""
        self.value = self.value.to(device, dtype)
        self.__post_init__()

    def average_in(self, hyper: Hyper) -> None:
        """Bring the average nearer to the value, by a share a lane."""
        *_, fresh = hyper.tensors
        self.average.lerp_(self.value, self.spread(fresh))

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """For a while, the average stands where the value does."""
        self.value, self.average = self.average, self.value
        try:
            yield
        finally:
            self.value, self.average = self.average, self.value

    def spread(self, numbers: Tensor) -> Tensor:
        """A number a lane, in a shape that broadcasts over value; a number a column where lanes stand side by side."""
        if self.columns is not None:
            return numbers.index_select(0, self.lane_of)
        return numbers.view(-1, *[1] * (self.value.dim() - 1))

    def of_lanes(self, first: int, last: int, tensor: Tensor) -> Tensor:
        """What belongs to some lanes, of a tensor that is shaped as value is, or as `spread` makes it."""
        if self.columns is not None:
            return tensor[..., self.ends[first] : self.ends[last]]
        return tensor[first:last]


@dataclass
class Pooled:
    """What the loss asks of the largest of each block of size × size, and which those were."""

    delta: Tensor
    place: Tensor  # as `Ops.pool` gave it
    x: Tensor  # what was pooled
    size: int


class Ops(Protocol):
    """One way of computing. Activations are [batch, height, width, lanes, channels] or [lanes, batch, features]."""

    def image_linear(self, batch: Batch, weight: Tensor) -> Tensor:
        """[batch, columns] = pixels × weight [pixels + 1, columns], whose last row is the bias."""

    def image_linear_update(self, batch: Batch, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        """One optimizer step of such a weight, from delta [batch, columns]."""

    def image_convolution(self, batch: Batch, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve with weight [lanes, outputs, size, size, channels] and bias [lanes, outputs]."""

    def image_convolution_gradients(self, batch: Batch, delta: Tensor, weight: Parameter, bias: Parameter) -> None:
        """Set the gradients of such a weight and bias."""

    def convolution(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Convolve each lane's own activation."""

    def convolution_gradients(
        self, pooled: Pooled, x: Tensor, weight: Parameter, bias: Parameter, *, wanted: bool
    ) -> Tensor:
        """Set the gradients of such a convolution; what the loss asks of x, where that is wanted."""

    def pool(self, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """The largest of each block, and where it stands, for `pool_gradient` and `convolution_gradients`."""

    def pool_gradient(self, pooled: Pooled) -> Tensor:
        """What the loss asks of all that was pooled: each block's delta at its place."""

    def rank_update(self, x: Tensor, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        """One optimizer step of weight [lanes, features + 1, outputs] with the gradient xᵀ delta."""

    def update(self, parameter: Parameter, hyper: Hyper) -> None:
        """One optimizer step."""

    def cross_entropy(self, outputs: Tensor, labels: Tensor, smoothing: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each lane's mean loss [lanes], and its derivative by outputs [lanes, batch, classes].

        smoothing [lanes] is the share of a target that all classes have in common, if any lane has one.
        """

    def drop(self, keys: Tensor, places: Tensor, shares: Tensor, mask: Tensor) -> None:
        """Fill a dropout mask as `noise.kept` does; keys and places are its uint32, as int32 with the same bits."""


class KernelOps:
    """On a CPU."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, tuple[int, ...], torch.dtype], Tensor] = {}

    def image_linear(self, batch: Batch, weight: Tensor) -> Tensor:
        out = weight.new_empty(len(batch), weight.shape[1])
        kernels.wide_forward(weight.numpy(), *batch.lit, out.numpy())
        return out

    def image_linear_update(self, batch: Batch, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        state = (t.numpy() for t in (weight.value, weight.first, weight.second))
        settings = (weight.ends, hyper.bounds, hyper.still, *hyper.rows())
        kernels.wide_update(*state, weight.asleep, delta.contiguous().numpy(), *batch.by_pixel, *settings)

    def image_convolution(self, batch: Batch, weight: Tensor, bias: Tensor) -> Tensor:
        lanes, outputs, size, _, channels = weight.shape
        runs = weight.flip(2, 3).permute(4, 2, 3, 0, 1).contiguous().view(channels, size, size, -1)
        high, wide = (side - size + 1 for side in batch.images.shape[2:])
        out = self._buffer("convolved", (len(batch), high, wide, lanes * outputs), weight.dtype)
        out.copy_(bias.view(1, 1, 1, -1).expand_as(out))
        kernels.image_convolution(batch.images.numpy(), batch.indices, batch.scale, runs.numpy(), out.numpy(), False)
        return out.view(*out.shape[:3], lanes, outputs)

    def image_convolution_gradients(self, batch: Batch, delta: Tensor, weight: Parameter, bias: Parameter) -> None:
        lanes, outputs, size, _, channels = weight.value.shape
        runs = delta.new_zeros(channels, size, size, lanes * outputs)
        flat = delta.reshape(*delta.shape[:3], -1)
        kernels.image_convolution(batch.images.numpy(), batch.indices, batch.scale, runs.numpy(), flat.numpy(), True)
        runs = runs.view(channels, size, size, lanes, outputs).permute(3, 4, 1, 2, 0)
        weight.gradient.copy_(runs.flip(2, 3))
        kernels.column_sums(flat.numpy(), bias.arrays[1].reshape(-1))

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
        dx = self._buffer("asked", tuple(x.shape), x.dtype)
        asked = (t.contiguous().numpy() for t in (pooled.delta, pooled.place))
        tensors = (x.contiguous(), padded, dx, gradient, bias.gradient)
        kernels.convolution_gradients(*asked, pooled.size, *(t.numpy() for t in tensors))
        weight.gradient.copy_(gradient[..., :run].reshape(weight.value.shape))
        return dx

    def pool(self, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
        flat = x.reshape(*x.shape[:3], -1)
        shape = (x.shape[0], x.shape[1] // size, x.shape[2] // size)
        out, place = (x.new_empty(*shape, flat.shape[3]) for _ in range(2))
        kernels.pool(flat.numpy(), size, out.numpy(), place.numpy())
        return out.view(*shape, *x.shape[3:]), place.view(*shape, *x.shape[3:])

    def pool_gradient(self, pooled: Pooled) -> Tensor:
        asked = self._buffer("given", tuple(pooled.x.shape), pooled.x.dtype)
        flat = (t.reshape(*t.shape[:3], -1).numpy() for t in (pooled.delta, pooled.place))
        kernels.pool_gradient(*flat, pooled.size, asked.view(*asked.shape[:3], -1).numpy())
        return asked

    def rank_update(self, x: Tensor, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        tensors = (x.contiguous(), delta.contiguous(), weight.value, weight.first, weight.second)
        kernels.rank_update(*(t.numpy() for t in tensors), *hyper.rows(), hyper.bounds)

    def update(self, parameter: Parameter, hyper: Hyper) -> None:
        kernels.lane_update(*parameter.arrays, hyper.bounds, *hyper.rows())

    def cross_entropy(self, outputs: Tensor, labels: Tensor, smoothing: Tensor | None) -> tuple[Tensor, Tensor]:
        losses, delta = outputs.new_empty(len(outputs)), torch.empty_like(outputs)
        common = torch.zeros_like(losses) if smoothing is None else smoothing
        kernels.cross_entropy(*(t.numpy() for t in (outputs, labels, common, losses, delta)))
        return losses, delta

    def drop(self, keys: Tensor, places: Tensor, shares: Tensor, mask: Tensor) -> None:
        kept(keys.numpy().view(np.uint32), places.numpy().view(np.uint32), shares.numpy(), mask.numpy())

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory that is used again every step: new megabytes cost a page fault every 4 KiB."""
        key = (name, shape, dtype)
        if key not in self._buffers:
            self._buffers[key] = torch.empty(shape, dtype=dtype)
        return self._buffers[key]


class TorchOps:
    """On any device."""

    def image_linear(self, batch: Batch, weight: Tensor) -> Tensor:
        return torch.addmm(weight[-1], batch.pixels.flatten(1), weight[:-1])

    def image_linear_update(self, batch: Batch, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        pixels = batch.pixels.flatten(1)
        ones = pixels.new_ones(len(batch), 1)
        weight.gradient = torch.mm(torch.cat([pixels, ones], 1).t(), delta)
        self.update(weight, hyper)

    def image_convolution(self, batch: Batch, weight: Tensor, bias: Tensor) -> Tensor:
        size = weight.shape[2]
        high, wide = (side - size + 1 for side in batch.pixels.shape[2:])
        out = torch.addmm(bias.flatten(), _patches(_as_lane(batch), size)[0], weight.flatten(0, 1).flatten(1).t())
        return out.view(len(batch), high, wide, *bias.shape)

    def image_convolution_gradients(self, batch: Batch, delta: Tensor, weight: Parameter, bias: Parameter) -> None:
        patches = _patches(_as_lane(batch), weight.value.shape[2])[0]
        weight.gradient.copy_(torch.mm(delta.reshape(len(patches), -1).t(), patches).view_as(weight.value))
        bias.gradient.copy_(delta.sum((0, 1, 2)))

    def convolution(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        lanes, outputs, size, *_ = weight.shape
        high, wide = (side - size + 1 for side in x.shape[1:3])
        out = torch.baddbmm(bias.unsqueeze(1), _patches(x, size), weight.flatten(2).transpose(1, 2))
        return out.view(lanes, len(x), high, wide, outputs).permute(1, 2, 3, 0, 4)

    def convolution_gradients(
        self, pooled: Pooled, x: Tensor, weight: Parameter, bias: Parameter, *, wanted: bool
    ) -> Tensor:
        lanes, outputs, size, *_ = weight.value.shape
        delta = self.pool_gradient(pooled)
        rows = delta.permute(3, 0, 1, 2, 4).reshape(lanes, -1, outputs)
        weight.gradient.copy_(torch.bmm(rows.transpose(1, 2), _patches(x, size)).view_as(weight.value))
        bias.gradient.copy_(rows.sum(1))
        return _together(torch.bmm(rows, weight.value.flatten(2)), x, size) if wanted else delta

    def pool(self, x: Tensor, size: int) -> tuple[Tensor, Tensor]:
        found = aten.max_pool2d_with_indices(x.flatten(3).permute(0, 3, 1, 2), *_sides(size))
        out, place = (t.permute(0, 2, 3, 1).reshape(len(t), *t.shape[2:], *x.shape[3:]) for t in found)
        return out, place

    def pool_gradient(self, pooled: Pooled) -> Tensor:
        if pooled.size == 1:
            return pooled.delta
        delta, x, place = (t.flatten(3).permute(0, 3, 1, 2) for t in (pooled.delta, pooled.x, pooled.place))
        given = aten.max_pool2d_with_indices_backward(delta, x, *_sides(pooled.size), place)
        asked: Tensor = given.permute(0, 2, 3, 1).reshape(pooled.x.shape)
        return asked

    def rank_update(self, x: Tensor, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        torch.bmm(x.transpose(1, 2), delta, out=weight.gradient[:, :-1])
        weight.gradient[:, -1] = delta.sum(1)
        self.update(weight, hyper)

    def update(self, parameter: Parameter, hyper: Hyper) -> None:
        rate, root, decay, momentum, _ = hyper.tensors
        gradient, rates = parameter.gradient, parameter.spread(rate)
        if not hyper.still:
            gradient.addcmul_(parameter.value, parameter.spread(decay))
        adam, moving = hyper.bounds.tolist()
        lanes = len(hyper.steps)
        if adam:
            tensors = (parameter.value, gradient, rates, parameter.first, parameter.second)
            roots = parameter.spread(root)
            _adam(*(parameter.of_lanes(0, adam, tensor) for tensor in (*tensors, roots)))
        if adam < moving:
            first, momenta = parameter.of_lanes(adam, moving, parameter.first), parameter.spread(momentum)
            first.mul_(parameter.of_lanes(adam, moving, momenta)).add_(parameter.of_lanes(adam, moving, gradient))
            _descend(*(parameter.of_lanes(adam, moving, t) for t in (parameter.value, parameter.first, rates)))
        if moving < lanes:
            _descend(*(parameter.of_lanes(moving, lanes, t) for t in (parameter.value, gradient, rates)))

    def cross_entropy(self, outputs: Tensor, labels: Tensor, smoothing: Tensor | None) -> tuple[Tensor, Tensor]:
        logarithms = outputs.log_softmax(2)
        chosen = labels.view(1, -1, 1).expand(len(outputs), -1, 1)
        losses = -logarithms.gather(2, chosen).mean((1, 2))
        if smoothing is not None:
            losses.lerp_(-logarithms.mean((1, 2)), smoothing)
            delta = logarithms.exp_().sub_(targets(outputs, labels, smoothing))
        else:
            delta = logarithms.exp_()
            delta.scatter_add_(2, chosen, delta.new_full((1, 1, 1), -1.0).expand_as(chosen))
        return losses, delta.mul_(1 / len(labels))

    def drop(self, keys: Tensor, places: Tensor, shares: Tensor, mask: Tensor) -> None:
        hashed = mixed(places.unsqueeze(1) ^ keys.unsqueeze(2))
        # As unsigned numbers: the order of signed ones, once the highest bit of both is turned over.
        bounds = (shares * WORD).round().clamp_(max=WORD - 1).long() - WORD // 2
        mask.copy_((hashed ^ HIGHEST) >= bounds.view(-1, 1, 1))
        mask.mul_((1 / (1 - shares)).to(mask).view(-1, 1, 1))


def _adam(value: Tensor, gradient: Tensor, rates: Tensor, first: Tensor, second: Tensor, roots: Tensor) -> None:
    beta1, beta2 = ADAM_BETAS
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    value.addcdiv_(first * rates, second.sqrt().mul_(roots).add_(ADAM_EPSILON), value=-1)


def _descend(value: Tensor, direction: Tensor, rates: Tensor) -> None:
    value.addcmul_(direction, rates, value=-1)


def targets(outputs: Tensor, labels: Tensor, smoothing: Tensor | None) -> Tensor:
    """What each lane's outputs are compared with, [lanes, batch, classes]: one-hot, all but a share of it.

    Where no lane smooths it is one for all, [batch, classes].
    """
    one_hot = functional.one_hot(labels, outputs.shape[2])
    if smoothing is None:
        return one_hot
    uniform = outputs.new_full((), 1 / outputs.shape[2])
    return torch.lerp(one_hot.to(outputs).expand_as(outputs), uniform, smoothing.view(-1, 1, 1))


def _sides(size: int) -> tuple[list[int], list[int], list[int], list[int], bool]:
    """How torch writes blocks of size × size without padding or dilation, the remainder left out."""
    return [size, size], [size, size], [0, 0], [1, 1], False


def _as_lane(batch: Batch) -> Tensor:
    """The images as the activation of one lane, which all lanes share."""
    return batch.pixels.permute(0, 2, 3, 1).unsqueeze(3)


def _patches(x: Tensor, size: int) -> Tensor:
    """What a convolution of x [batch, height, width, lanes, channels] multiplies, [lanes, places, size² * channels].

    With it a convolution is a product of matrices. cuDNN's convolution in groups, a group a lane, took several times as
    long on an H200, and its gradients more.
    """
    windows = x.unfold(1, size, 1).unfold(2, size, 1)
    return windows.permute(3, 0, 1, 2, 5, 6, 4).reshape(x.shape[3], -1, size * size * x.shape[4])


def _together(patches: Tensor, x: Tensor, size: int) -> Tensor:
    """The sum of all patches, each where `_patches` took it from x."""
    batch, height, width, lanes, channels = x.shape
    places = (height - size + 1) * (width - size + 1)
    columns = patches.view(lanes * batch, places, size * size, channels).permute(0, 3, 2, 1)
    found = functional.fold(columns.reshape(lanes * batch, -1, places), (height, width), size)
    return found.view(lanes, batch, channels, height, width).permute(1, 3, 4, 0, 2)
