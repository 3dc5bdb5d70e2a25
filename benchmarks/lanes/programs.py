"""The programs that are timed, each in a process of its own, driven in lock-step."""

import multiprocessing as mp
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import torch

from benchmarks.lanes.baselines import CarefulBaseline, RecordedBaseline, ReportBaseline, batches_of
from benchmarks.lanes.workloads import IMAGE, Workload
from benchmarks.machine import MachineLimits, waiting
from ml.datasets import Stream, datasets
from ml.lanes.lanes import Lanes, LaneState
from ml.network.evaluate import Images, scaled
from ml.training.lane import TrainingData
from ml.training.process import memory_at_hand, process_settings
from ml.tuning.width import bytes_of, fastest

SEED = 0
Widths = dict[int, float]


class Program(ABC):
    """A way of training a workload, in this process."""

    trials = 1  # that one step trains

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.wait = device, waiting(device)
        self.data = TrainingData.load(datasets["mnist"], "random", SEED, device).train
        self.step: Callable[[], None] = lambda: None

    @abstractmethod
    def prepare(self, work: Workload, *options: Any) -> Any:
        """Get ready for a workload."""

    def warm(self, steps: int, seconds: float) -> int:
        """Take so many steps, or as many as fit; how many."""
        started, taken = perf_counter(), 0
        while taken < steps and perf_counter() - started < seconds:
            self.step()
            taken += 1
        self.wait()
        return taken

    def measure(self, seconds: float) -> float:
        """The seconds that a step and trial takes."""
        return seconds_a_step(self.step, seconds, self.wait) / self.trials


class Plain(Program):
    """A baseline, on images that are float32 already."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)
        self.pixels, self.labels = scaled(self.data.images), self.data.labels


class Report(Plain):
    """Baseline A, with torch's own number of threads."""

    def prepare(self, work: Workload, *options: Any) -> None:
        images, labels = self.pixels.cpu(), self.labels.cpu()  # a batch is brought to the GPU when its turn comes
        self.step = ReportBaseline(
            work.layers, work.optimizer, images, labels, work.batch_size, SEED, device=self.device
        ).step


class Careful(Plain):
    """Baseline B; on one thread unless told otherwise."""

    def __init__(self, threads: int = 1, *, flush: bool = False, device: str = "cpu", recorded: bool = False) -> None:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flush)
        super().__init__(device)
        self.kind = RecordedBaseline if recorded else CarefulBaseline

    def prepare(self, work: Workload, *options: Any) -> bool:
        """Whether channels-last was faster, where there are convolutions and it is not settled already."""
        seconds, settled = options
        if settled is not None or work.network != "cnn":
            self.step = self._baseline(work, channels_last=bool(settled)).step
            return bool(settled)
        plain, last = self._baseline(work), self._baseline(work, channels_last=True)
        for baseline in (plain, last):
            seconds_a_step(baseline.step, seconds / 2, self.wait)
        faster = seconds_a_step(last.step, seconds, self.wait) < seconds_a_step(plain.step, seconds, self.wait)
        self.step = (last if faster else plain).step
        return faster

    def _baseline(self, work: Workload, *, channels_last: bool = False) -> CarefulBaseline:
        batches = batches_of(len(self.data), work.batch_size, SEED)
        return self.kind(
            work.layers, work.optimizer, self.pixels, self.labels, batches, SEED, channels_last=channels_last
        )


class Packed(Program):
    """The product: a pack of lanes, on one thread."""

    def __init__(self, device: str = "cpu") -> None:
        process_settings()
        super().__init__(device)
        self._limits: MachineLimits | None = None

    def widths(self, work: Workload, widths: Sequence[int], seconds: float, longest: float, room: float) -> Widths:
        """The seconds of a step and lane, by the width of a pack.

        Left out where a step would take more than `longest`, and where weights and optimizer would not fit `room`.
        """
        state = LaneState.initial(work.layers, work.optimizer, SEED)
        needed = bytes_of(work.layers, IMAGE, work.batch_size)
        found: Widths = {}
        for width in widths:
            if width * min(found.values(), default=0.0) > longest or (found and width * work.state > room):
                break
            if width * needed > memory_at_hand(torch.device(self.device)) / 3:
                break
            lanes = Lanes([state] * width, IMAGE, device=self.device)
            take = stepper(lanes, self.data, work.batch_size)
            for _ in range(lanes.warm_steps):
                take()
            self.wait()
            found[width] = fastest(lambda _, take=take: self._taken(take), seconds) / width  # as a job's own is timed
        return found

    def _taken(self, take: Callable[[], None]) -> None:
        take()
        self.wait()

    def prepare(self, work: Workload, *options: Any) -> None:
        """Get ready with so many lanes."""
        self.trials = options[0]
        states = [LaneState.initial(work.layers, work.optimizer, seed) for seed in range(self.trials)]
        self.step = stepper(Lanes(states, IMAGE, device=self.device), self.data, work.batch_size)

    def limits(self) -> tuple[float, float]:
        """Operations and bytes a second, on one thread."""
        self._limits = self._limits or MachineLimits(self.device)
        return self._limits.gemm(), self._limits.copy()


def stepper(lanes: Lanes, data: Images, batch_size: int) -> Callable[[], None]:
    """What trains `lanes` on the next batch of a stream."""
    stream, position = Stream(len(data), batch_size, SEED), 0

    def step() -> None:
        nonlocal position
        lanes.step(data, stream.batch(position))
        position += 1

    return step


def seconds_a_step(step: Callable[[], None], seconds: float, wait: Callable[[], None] = lambda: None) -> float:
    """What a step takes on average, over as many as fit, at least one; `wait` until all have been taken."""
    started, steps = perf_counter(), 0
    while steps == 0 or perf_counter() - started < seconds:
        step()
        steps += 1
    wait()
    return (perf_counter() - started) / steps


class Remote:
    """A program in a process of its own."""

    def __init__(self, kind: type[Program], **settings: Any) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload([__name__])  # torch is imported once; it must not compute before a fork
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, kind, settings), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, name: str, *arguments: Any) -> None:
        """Call a method, without waiting for it to end."""
        self._pipe.send((name, arguments))

    def result(self) -> Any:
        """What the call returned, once it has; EOFError where the process is gone."""
        return self._pipe.recv()

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a method and wait for it."""
        self.begin(name, *arguments)
        return self.result()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()


def together(remotes: Iterable[Remote], name: str, *arguments: Any) -> list[Any]:
    """Call a method of several at the same time."""
    called = list(remotes)
    for remote in called:
        remote.begin(name, *arguments)
    return [remote.result() for remote in called]


def _serve(pipe: Connection, kind: type[Program], settings: dict[str, Any]) -> None:
    program = kind(**settings)
    while True:
        try:
            name, arguments = pipe.recv()
        except EOFError:
            return
        pipe.send(getattr(program, name)(*arguments))
