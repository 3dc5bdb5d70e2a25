"""The baselines for lanes: one trial in plain torch, written as most people write it, and as fast as possible."""

from collections.abc import Iterator
from itertools import count
from pydoc import locate
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from ml.datasets import Stream
from ml.layers import Layer
from ml.network.modules import module_of
from ml.optimizers import Optimizer


def torch_optimizer(optimizer: Optimizer, module: nn.Module, **options: Any) -> torch.optim.Optimizer:
    """Return the torch optimizer that `optimizer` describes."""
    kind: Any = locate(optimizer.torch_class)
    built: torch.optim.Optimizer = kind(module.parameters(), **optimizer.arguments(), **options)
    return built


class ReportBaseline:
    """Baseline A: a training loop as in a student's report."""

    def __init__(
        self,
        layers: list[Layer],
        optimizer: Optimizer,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        seed: int = 0,
        *,
        device: str = "cpu",
    ) -> None:
        self.device = device
        self.model = module_of(layers, seed).to(device)
        self.optimizer = torch_optimizer(optimizer, self.model)
        self.loader = DataLoader(TensorDataset(images, labels), batch_size=batch_size, shuffle=True)
        self._batches = iter(self.loader)

    def epoch(self) -> float:
        """Train on all images once, and return the mean loss."""
        return sum(self._learn(images, labels) for images, labels in self.loader) / len(self.loader)

    def step(self) -> None:
        """Train on the next batch; after the last one of an epoch, start the next epoch."""
        batch = next(self._batches, None)
        if batch is None:
            self._batches = iter(self.loader)
            batch = next(self._batches)
        self._learn(*batch)

    def _learn(self, images: Tensor, labels: Tensor) -> float:
        self.optimizer.zero_grad()
        loss = cross_entropy(self.model(images.to(self.device)), labels.to(self.device))
        loss.backward()
        self.optimizer.step()
        return loss.item()


class CarefulBaseline:
    """Baseline B: no loader, float32 images in memory, a fused optimizer, and the loss is never read."""

    def __init__(
        self,
        layers: list[Layer],
        optimizer: Optimizer,
        images: Tensor,
        labels: Tensor,
        batches: Iterator[Tensor],
        seed: int = 0,
        *,
        channels_last: bool = False,
    ) -> None:
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = module_of(layers, seed).to(images.device, memory_format=layout)
        self.optimizer = torch_optimizer(optimizer, self.model, fused=True)
        self.images, self.labels, self.batches = images, labels, batches

    def step(self) -> None:
        """Train on the next batch."""
        self.learn(next(self.batches).to(self.images.device, non_blocking=True))

    def learn(self, batch: Tensor) -> None:
        """Train on the batch with these indices."""
        loss = cross_entropy(self.model(self.images.index_select(0, batch)), self.labels.index_select(0, batch))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class RecordedBaseline(CarefulBaseline):
    """Baseline B on a GPU, with its whole step recorded as a CUDA graph as torch's documentation describes."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        for group in self.optimizer.param_groups:
            group["capturable"] = True
        self.batch = next(self.batches).to(self.images.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.learn(self.batch)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.learn(self.batch)

    def step(self) -> None:
        """Train on the next batch."""
        self.batch.copy_(next(self.batches), non_blocking=True)
        self.graph.replay()


def batches_of(size: int, batch_size: int, seed: int) -> Iterator[Tensor]:
    """Yield the batches of a pack's stream, as indices."""
    stream = Stream(size, batch_size, seed)
    for step in count():
        yield torch.from_numpy(stream.batch(step))


def accuracy(model: nn.Module, pixels: Tensor, labels: Tensor) -> float:
    """Return the share of images that a model classifies correctly."""
    with torch.inference_mode():
        found = [model(some).argmax(1) for some in pixels.split(1000)]
    return float(np.mean((torch.cat(found) == labels).numpy()))
