"""Training steps on a GPU, recorded once and then replayed as a whole.

A step of lanes is dozens of small kernels, and a CPU needs about as long to launch one as a GPU needs to run it. A CUDA
graph launches them all at once. It reads and writes the memory addresses that it was recorded with. So each minibatch
is copied to the same place, and weights, moments and coefficients stay in place.
"""

import gc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from ml.lanes.minibatch import Minibatch

EAGER = 8  # steps before one is recorded; they load the kernels, and a recording costs as much as dozens of steps


class Recorder:
    """Take the steps of one set of lanes; all steps do the same, each on another minibatch.

    The function of a step is passed in each time. If it was kept, lanes and recorder would refer to each other, and
    their memory on the GPU would be freed only by Python's next search for cycles.
    """

    def __init__(self) -> None:
        self._taken: Counter[int] = Counter()
        self._recordings: dict[int, Recording] = {}

    def step(self, batch: Minibatch, learn: Callable[[Minibatch], None]) -> None:
        """Take a step.

        Args:
            batch: the minibatch.
            learn: does the step; it must neither wait for the GPU nor copy anything to it.
        """
        size = len(batch)
        if size in self._recordings:
            self._recordings[size].replay(batch)
            return
        learn(batch)
        self._taken[size] += 1
        if self._taken[size] == EAGER:
            self._recordings[size] = Recording(batch, learn)


class Recording:
    """A recorded step on minibatches of one size."""

    def __init__(self, batch: Minibatch, learn: Callable[[Minibatch], None]) -> None:
        """Record a step without running it."""
        self._images, self._labels = batch.of(batch.images).clone(), batch.of(batch.labels).clone()
        self._graph = torch.cuda.CUDAGraph()
        with _no_garbage_collection(), torch.cuda.graph(self._graph):
            learn(Minibatch(self._images, self._labels, None, batch.dtype))

    def replay(self, batch: Minibatch) -> None:
        """Run the recorded step on a minibatch."""
        batch.of(batch.images, self._images)
        batch.of(batch.labels, self._labels)
        self._graph.replay()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Pause garbage collection, which may find an old graph: CUDA forbids destroying one while recording another."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
