"""The arithmetic of lanes by torch's operations, on any device."""

import torch
from torch import Tensor
from torch.nn import functional

from ml.kernels.noise import HIGHEST, WORD, mixed
from ml.lanes.coefficients import Hyper
from ml.lanes.minibatch import Minibatch
from ml.lanes.ops import Pooled
from ml.lanes.parameter import Parameter
from ml.optimizers import ADAM_BETAS, ADAM_EPSILON

aten = torch.ops.aten


class TorchOps:
    """The arithmetic on any device."""

    def image_linear(self, batch: Minibatch, weight: Tensor) -> Tensor:
        return torch.addmm(weight[-1], batch.pixels.flatten(1), weight[:-1])

    def image_linear_update(self, batch: Minibatch, delta: Tensor, weight: Parameter, hyper: Hyper) -> None:
        pixels = batch.pixels.flatten(1)
        ones = pixels.new_ones(len(batch), 1)
        weight.gradient = torch.mm(torch.cat([pixels, ones], 1).t(), delta)
        self.update(weight, hyper)

    def image_convolution(self, batch: Minibatch, weight: Tensor, bias: Tensor) -> Tensor:
        size = weight.shape[2]
        high, wide = (side - size + 1 for side in batch.pixels.shape[2:])
        out = torch.addmm(bias.flatten(), _patches(_as_lane(batch), size)[0], weight.flatten(0, 1).flatten(1).t())
        return out.view(len(batch), high, wide, *bias.shape)

    def image_convolution_gradients(self, batch: Minibatch, delta: Tensor, weight: Parameter, bias: Parameter) -> None:
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
        gradient = aten.max_pool2d_with_indices_backward(delta, x, *_sides(pooled.size), place)
        dx: Tensor = gradient.permute(0, 2, 3, 1).reshape(pooled.x.shape)
        return dx

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
            tensors = (parameter.value, gradient, rates, parameter.exp_avg, parameter.exp_avg_sq)
            roots = parameter.spread(root)
            _adam(*(parameter.of_lanes(0, adam, tensor) for tensor in (*tensors, roots)))
        if adam < moving:
            exp_avg, momenta = parameter.of_lanes(adam, moving, parameter.exp_avg), parameter.spread(momentum)
            exp_avg.mul_(parameter.of_lanes(adam, moving, momenta)).add_(parameter.of_lanes(adam, moving, gradient))
            _descend(*(parameter.of_lanes(adam, moving, t) for t in (parameter.value, parameter.exp_avg, rates)))
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
        # Flipping the highest bit of both makes signed numbers compare as unsigned ones do.
        bounds = (shares * WORD).round().clamp_(max=WORD - 1).long() - WORD // 2
        mask.copy_((hashed ^ HIGHEST) >= bounds.view(-1, 1, 1))
        mask.mul_((1 / (1 - shares)).to(mask).view(-1, 1, 1))


def _adam(value: Tensor, gradient: Tensor, rates: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, roots: Tensor) -> None:
    beta1, beta2 = ADAM_BETAS
    exp_avg.lerp_(gradient, 1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    value.addcdiv_(exp_avg * rates, exp_avg_sq.sqrt().mul_(roots).add_(ADAM_EPSILON), value=-1)


def _descend(value: Tensor, direction: Tensor, rates: Tensor) -> None:
    value.addcmul_(direction, rates, value=-1)


def targets(outputs: Tensor, labels: Tensor, smoothing: Tensor | None) -> Tensor:
    """Return the targets of each lane's outputs, [lanes, batch, classes]: one-hot, with smoothing.

    If no lane smooths, all lanes have the same targets, [batch, classes].
    """
    one_hot = functional.one_hot(labels, outputs.shape[2])
    if smoothing is None:
        return one_hot
    uniform = outputs.new_full((), 1 / outputs.shape[2])
    return torch.lerp(one_hot.to(outputs).expand_as(outputs), uniform, smoothing.view(-1, 1, 1))


def _sides(size: int) -> tuple[list[int], list[int], list[int], list[int], bool]:
    """Return torch's arguments for blocks of size × size without padding or dilation, with no block for a remainder."""
    return [size, size], [size, size], [0, 0], [1, 1], False


def _as_lane(batch: Minibatch) -> Tensor:
    """Return the images as an activation of one lane, which all lanes share."""
    return batch.pixels.permute(0, 2, 3, 1).unsqueeze(3)


def _patches(x: Tensor, size: int) -> Tensor:
    """Return the patches of x [batch, height, width, lanes, channels], [lanes, places, size² * channels].

    With them a convolution is a matrix product. cuDNN's convolution with a group for each lane took several times as
    long on an H200, and its gradients even longer.
    """
    windows = x.unfold(1, size, 1).unfold(2, size, 1)
    return windows.permute(3, 0, 1, 2, 5, 6, 4).reshape(x.shape[3], -1, size * size * x.shape[4])


def _together(patches: Tensor, x: Tensor, size: int) -> Tensor:
    """Return the sum of all patches, each at the place that `_patches` took it from."""
    batch, height, width, lanes, channels = x.shape
    places = (height - size + 1) * (width - size + 1)
    columns = patches.view(lanes * batch, places, size * size, channels).permute(0, 3, 2, 1)
    found = functional.fold(columns.reshape(lanes * batch, -1, places), (height, width), size)
    return found.view(lanes, batch, channels, height, width).permute(1, 3, 4, 0, 2)
