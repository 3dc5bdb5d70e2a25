"""Training steps on a GPU, recorded once and then replayed as a whole.

A step of lanes is dozens of small kernels, and launching one costs a CPU about as long as a GPU takes to run it. A CUDA
graph launches them all at once. What it reads and writes must lie where it lay when it was recorded: the minibatch is
copied to one place, and weights, moments and coefficients stay at theirs.
"""

from collections import Counter
from collections.abc import Callable

import torch

from ml.ops import Batch

EAGER = (
    8  # steps that are taken one by one before one is recorded, which costs as much as dozens; they load kernels too
)


class Recorder:
    """Takes steps, each of which does the same on another minibatch."""

    def __init__(self, learn: Callable[[Batch], None]) -> None:
        """`learn` must wait for nothing that the GPU has not done, and bring it nothing."""
        self._learn = learn
        self._taken: Counter[int] = Counter()
        self._recordings: dict[int, Recording] = {}

    def __call__(self, batch: Batch) -> None:
        """Take a step."""
        size = len(batch)
        if size in self._recordings:
            self._recordings[size].replay(batch)
            return
        self._learn(batch)
        self._taken[size] += 1
        if self._taken[size] == EAGER:
            self._recordings[size] = Recording(self._learn, batch)


class Recording:
    """A step on minibatches of one size."""

    def __init__(self, learn: Callable[[Batch], None], batch: Batch) -> None:
        """Record it, without taking it."""
        self._images, self._labels = batch.of(batch.images).clone(), batch.of(batch.labels).clone()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            learn(Batch(self._images, self._labels, None, batch.dtype))

    def replay(self, batch: Batch) -> None:
        """Take it."""
        batch.of(batch.images, self._images)
        batch.of(batch.labels, self._labels)
        self._graph.replay()
