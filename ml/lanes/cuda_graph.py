"""Training steps on a GPU, recorded once and then replayed as a whole.

A step of lanes is dozens of small kernels, and launching one costs a CPU about as long as a GPU takes to run it. A CUDA
graph launches them all at once. What it reads and writes must lie where it lay when it was recorded: the minibatch is
copied to one place, and weights, moments and coefficients stay at theirs.
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ml.lanes.minibatch import Minibatch

EAGER = 8  # steps that are taken before one is recorded, which costs as much as dozens; they load the kernels


class Recorder:
    """Takes the steps of one set of lanes, each of which does the same on another minibatch.

    It is told anew what a step is each time: lanes that it kept would be a cycle, whose memory on the GPU is given back
    only when Python next looks for cycles.
    """

    def __init__(self) -> None:
        self._taken: Counter[int] = Counter()
        self._recordings: dict[int, Recording] = {}

    def step(self, batch: Minibatch, learn: Callable[[Minibatch], None]) -> None:
        """Take a step, which is `learn`: it must wait for nothing that the GPU has not done, and bring it nothing."""
        size = len(batch)
        if size in self._recordings:
            self._recordings[size].replay(batch)
            return
        learn(batch)
        self._taken[size] += 1
        if self._taken[size] == EAGER:
            self._recordings[size] = Recording(batch, learn)


class Recording:
    """A step on minibatches of one size."""

    def __init__(self, batch: Minibatch, learn: Callable[[Minibatch], None]) -> None:
        """Record it, without taking it."""
        self._images, self._labels = batch.of(batch.images).clone(), batch.of(batch.labels).clone()
        self._graph = torch.cuda.CUDAGraph()
        with _no_garbage_collection(), torch.cuda.graph(self._graph):
            learn(Minibatch(self._images, self._labels, None, batch.dtype))

    def replay(self, batch: Minibatch) -> None:
        """Take it."""
        batch.of(batch.images, self._images)
        batch.of(batch.labels, self._labels)
        self._graph.replay()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Keep Python from finding an old graph meanwhile: CUDA forbids destroying one while another is recorded."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
