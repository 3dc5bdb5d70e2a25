"""The oracle: one trial alone, in plain torch, as anybody would write it."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ml.datasets import Stream
from ml.evaluate import Images
from ml.lanes import LaneState
from ml.optimizers import Adam


def train_alone(
    state: LaneState,
    data: Images,
    batches: Iterable[np.ndarray],
    loss: str = "cross_entropy",
    dtype: torch.dtype = torch.float64,
    frozen: frozenset[int] = frozenset(),
) -> nn.Module:
    """Train a lane's initial weights with torch.optim on these batches; layers at some places may be frozen."""
    module = state.module().to(dtype).train()
    for place in frozen:
        module[place].requires_grad_(requires_grad=False)
    kind = torch.optim.Adam if isinstance(state.optimizer, Adam) else torch.optim.SGD
    optimizer = kind(module.parameters(), **state.optimizer.arguments())
    for indices in batches:
        chosen = torch.from_numpy(indices)
        outputs = module(data.images[chosen].to(dtype) / 255)
        labels = data.labels[chosen]
        if loss == "mse":
            value = functional.mse_loss(outputs, functional.one_hot(labels, outputs.shape[1]).to(dtype))
        else:
            value = functional.cross_entropy(outputs, labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return module


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of any weight, in units of the largest weight of its tensor."""
    return max(
        ((one[name].double() - tensor.double()).abs().max() / tensor.double().abs().max()).item()
        for name, tensor in other.items()
    )


def batches(size: int, batch_size: int, steps: int, seed: int = 7, first: int = 0) -> list[np.ndarray]:
    """The first minibatches of a stream."""
    stream = Stream(size, batch_size, seed)
    return [stream.batch(first + step) for step in range(steps)]
