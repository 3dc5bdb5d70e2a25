"""The oracle for lanes: one trial alone, in plain torch."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LRScheduler, OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ml.datasets import Stream
from ml.lanes.lanes import LaneState
from ml.lanes.numba_ops import KernelOps
from ml.lanes.ops import Ops
from ml.lanes.torch_ops import TorchOps
from ml.layers import Dropout
from ml.network.evaluate import Images
from ml.optimizers import Adam


class Way(NamedTuple):
    """A device that lanes train on, and the operations they train with."""

    device: str
    ops: type[Ops]


CPU = Way("cpu", KernelOps)
DEVICES = [CPU, *([Way("cuda", TorchOps)] if torch.cuda.is_available() else [])]  # each with its usual operations
WAYS = [*DEVICES, Way("cpu", TorchOps)]


def train_alone(
    state: LaneState,
    data: Images,
    batches: Iterable[np.ndarray],
    loss: str = "cross_entropy",
    dtype: torch.dtype = torch.float64,
    frozen: frozenset[int] = frozenset(),
) -> nn.Module:
    """Train a lane's initial weights with torch.optim on these batches, and return the module.

    `frozen` holds the positions of the layers whose weights stay fixed. If the recipe averages weights, the averaged
    module is returned.
    """
    module = _dropping(state).to(dtype).train()
    for place in frozen:
        module[place].requires_grad_(requires_grad=False)
    kind = torch.optim.Adam if isinstance(state.optimizer, Adam) else torch.optim.SGD
    optimizer = kind(module.parameters(), **state.optimizer.arguments())
    scheduler = _scheduler(optimizer, state)
    decay = state.recipe.ema_decay
    averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(decay or 0.0))
    for indices in batches:
        chosen = torch.from_numpy(indices)
        outputs = module(data.images[chosen].to(dtype) / 255)
        labels = data.labels[chosen]
        if loss == "mse":
            one_hot = functional.one_hot(labels, outputs.shape[1]).to(dtype)
            smoothing = state.recipe.label_smoothing
            value = functional.mse_loss(outputs, (1 - smoothing) * one_hot + smoothing / outputs.shape[1])
        else:
            value = functional.cross_entropy(outputs, labels, label_smoothing=state.recipe.label_smoothing)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        scheduler.step()
        averaged.update_parameters(module)
    return module if decay is None else averaged.module


def _scheduler(optimizer: torch.optim.Optimizer, state: LaneState) -> LRScheduler:
    steps = state.recipe.steps
    if state.recipe.schedule == "cosine":
        return CosineAnnealingLR(optimizer, steps)
    if state.recipe.schedule == "one_cycle":
        rate = state.optimizer.learning_rate
        return OneCycleLR(optimizer, rate, total_steps=steps, cycle_momentum=False)
    return LambdaLR(optimizer, lambda _: 1.0)


class _Dropped(nn.Module):
    """Dropout with masks that are computed number by number, by the rule in `ml/kernels/noise.py`."""

    def __init__(self, p: float, place: int, seed: int) -> None:
        super().__init__()
        self.p, self.seed, self.step = p, (seed + place * 0x9E3779B9) % 2**32, 0

    def forward(self, x: Tensor) -> Tensor:
        own = _hash(np.uint64((int(_hash(np.uint64(self.seed))) + self.step) % 2**32))
        rows = _hash((own + np.arange(len(x), dtype=np.uint64) * np.uint64(0x9E3779B9)) % np.uint64(2**32))
        places = _hash((np.arange(x[0].numel(), dtype=np.uint64) + np.uint64(0x9E3779B9)) % np.uint64(2**32))
        kept = _hash(rows[:, None] ^ places) >= np.uint64(round(self.p * 2**32))
        self.step += 1
        return x * torch.from_numpy(kept).view(x.shape) / (1 - self.p)


def _hash(x: np.ndarray) -> np.ndarray:
    """Return the hash lowbias32 of each number, computed in 64 bits."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)):
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) % np.uint64(2**32)
    return x


def _dropping(state: LaneState) -> nn.Module:
    """Return the lane's module with these masks in its dropout layers."""
    module = state.module()
    for place, layer in enumerate(state.layers):
        if isinstance(layer, Dropout):
            module[place] = _Dropped(layer.p, place, state.recipe.seed)
    return module


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Return the largest difference of any weight, relative to the largest weight of its tensor."""
    return max(
        ((one[name].double() - tensor.double()).abs().max() / tensor.double().abs().max()).item()
        for name, tensor in other.items()
    )


def batches(size: int, batch_size: int, steps: int, seed: int = 7, first: int = 0) -> list[np.ndarray]:
    """Return the first minibatches of a stream."""
    stream = Stream(size, batch_size, seed)
    return [stream.batch(first + step) for step in range(steps)]
