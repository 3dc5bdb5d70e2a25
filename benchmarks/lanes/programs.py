"""The programs that are timed, each in a separate process, driven one step after another."""

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
from ml.training.timing import fastest
from ml.tuning.width import bytes_of

SEED = 0
Widths = dict[int, float]


class Program(ABC):
    """A way of training a workload, run in this process."""

    trials = 1  # trained by one step

    def __init__(self, device: str = "cpu") -> None:
        self.device, self.wait = device, waiting(device)
        self.data = TrainingData.load(datasets["mnist"], "random", SEED, device).train
        self.step: Callable[[], None] = lambda: None

    @abstractmethod
    def prepare(self, work: Workload, *options: Any) -> Any:
        """Prepare for a workload."""

    def warm(self, steps: int, seconds: float) -> int:
        """Take up to `steps` steps within `seconds`, and return the number of steps taken."""
        started, taken = perf_counter(), 0
        while taken < steps and perf_counter() - started < seconds:
            self.step()
            taken += 1
        self.wait()
        return taken

    def measure(self, seconds: float) -> float:
        """Return the seconds per step and trial."""
        return seconds_a_step(self.step, seconds, self.wait) / self.trials


class Plain(Program):
    """A baseline on images that are already float32."""

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(device)
        self.pixels, self.labels = scaled(self.data.images), self.data.labels


class Report(Plain):
    """Baseline A, with torch's own number of threads."""

    def prepare(self, work: Workload, *options: Any) -> None:
        images, labels = self.pixels.cpu(), self.labels.cpu()  # each batch is copied to the GPU when it is used
        self.step = ReportBaseline(
            work.layers, work.optimizer, images, labels, work.batch_size, SEED, device=self.device
        ).step


class Careful(Plain):
    """Baseline B, on one thread by default."""

    def __init__(self, threads: int = 1, *, flush: bool = False, device: str = "cpu", recorded: bool = False) -> None:
        torch.set_num_threads(threads)
        torch.set_flush_denormal(flush)
        super().__init__(device)
        self.kind = RecordedBaseline if recorded else CarefulBaseline

    def prepare(self, work: Workload, *options: Any) -> bool:
        """Prepare for a workload, and return whether to use channels-last.

        Args:
            work: The workload.
            options: The seconds to time each memory layout of a CNN; and the layout if it is decided, else None.
        """
        seconds, decided = options
        if decided is not None or work.network != "cnn":
            self.step = self._baseline(work, channels_last=bool(decided)).step
            return bool(decided)
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
        """Return the seconds per step and lane for each width of a pack.

        Args:
            work: The workload.
            widths: The widths to try, ascending.
            seconds: The time to measure each width.
            longest: The limit in seconds of a step; wider packs are left out.
            room: The limit in bytes of weights and optimizer state; wider packs are left out.
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
            found[width] = fastest(lambda _, take=take: self._taken(take), seconds) / width  # timed as in a job
        return found

    def _taken(self, take: Callable[[], None]) -> None:
        take()
        self.wait()

    def prepare(self, work: Workload, *options: Any) -> None:
        """Prepare for a workload, with the number of lanes as the only option."""
        self.trials = options[0]
        states = [LaneState.initial(work.layers, work.optimizer, seed) for seed in range(self.trials)]
        self.step = stepper(Lanes(states, IMAGE, device=self.device), self.data, work.batch_size)

    def limits(self) -> tuple[float, float]:
        """Return the limits of one thread: operations and bytes per second."""
        self._limits = self._limits or MachineLimits(self.device)
        return self._limits.gemm(), self._limits.copy()


def stepper(lanes: Lanes, data: Images, batch_size: int) -> Callable[[], None]:
    """Return a function that trains `lanes` on the next batch of a stream."""
    stream, position = Stream(len(data), batch_size, SEED), 0

    def step() -> None:
        nonlocal position
        lanes.step(data, stream.batch(position))
        position += 1

    return step


def seconds_a_step(step: Callable[[], None], seconds: float, wait: Callable[[], None] = lambda: None) -> float:
    """Return the mean seconds of a step.

    Args:
        step: The step to time, at least once.
        seconds: The time to fill with steps.
        wait: Waits until the device has finished all steps.
    """
    started, steps = perf_counter(), 0
    while steps == 0 or perf_counter() - started < seconds:
        step()
        steps += 1
    wait()
    return (perf_counter() - started) / steps


class Remote:
    """A program in a separate process."""

    def __init__(self, kind: type[Program], **settings: Any) -> None:
        context = mp.get_context("forkserver")
        context.set_forkserver_preload([__name__])  # imports torch only once; torch must not compute before a fork
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, kind, settings), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, name: str, *arguments: Any) -> None:
        """Start a call of a method without waiting for its result."""
        self._pipe.send((name, arguments))

    def result(self) -> Any:
        """Wait for the result of the call and return it.

        Raises:
            EOFError: if the process has ended.
        """
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
    """Call a method of several programs at the same time, and return their results."""
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
