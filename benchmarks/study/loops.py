"""The baselines: Optuna around the careful loop of `benchmarks.lanes`, in processes that report each epoch."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from queue import Empty
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import MaxTrialsCallback
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.lanes.baselines import CarefulBaseline, accuracy, batches_of
from benchmarks.lanes.programs import seconds_a_step
from benchmarks.machine import cores
from benchmarks.study.incumbents import Clock
from benchmarks.study.searches import DECAY, EPOCHS, TRIALS, TargetSearch, data_of
from ml.datasets import Stream
from ml.network.evaluate import scaled
from ml.records import STEPS_PER_EPOCH
from ml.specs import TuneSpec
from ml.training.lane import TrainingData

TRIED = 2.0  # seconds to try each way to run a loop
MIDDLE = 50  # the batch size at which the ways are tried
Message = tuple[int, dict[str, Any], int, float]  # trial, parameters, step and validation accuracy
Way = tuple[int, bool]  # number of threads, and whether images are channels-last


@dataclass(frozen=True)
class Loop:
    """A way to search without Chiffre."""

    name: str  # for display
    pruner: Callable[[], optuna.pruners.BasePruner]
    per_core: bool  # a process per core with one thread each; else one process with the fastest number of threads
    averaged: bool  # the moving average of the weights is evaluated, and numbers below 1e-38 become 0


LOOPS = {
    "b": Loop("Optuna's TPE and median pruner around loop B", optuna.pruners.MedianPruner, False, False),
    "best": Loop(
        "Optuna's TPE and hyperband around loop B with averaged weights, a process per core",
        partial(optuna.pruners.HyperbandPruner, min_resource=1, max_resource=EPOCHS),
        True,
        True,
    ),
}


class Running:
    """A search by a loop, in processes that can be stopped for a while; use as a context."""

    def __init__(self, search: TargetSearch, loop: Loop, seed: int, tried: float = TRIED) -> None:
        self._context = get_context("forkserver")
        self._context.set_forkserver_preload([__name__])  # imports torch only once; it must not compute before a fork
        self._search, self._loop, self._seed, self._tried = search, loop, seed, tried
        self._messages: Any = self._context.Queue()
        self._processes: list[Any] = []
        self.threads = 0
        self.clock = Clock()

    def __enter__(self) -> "Running":
        self._folder = TemporaryDirectory(prefix="chiffre-study-")
        ready, go = self._context.Semaphore(0), self._context.Event()
        ways = self._ways()
        self.threads = sum(threads for threads, _ in ways)
        for place, way in enumerate(ways):
            given = (self._search, self._loop, self._seed, place, way, Path(self._folder.name), ready, go)
            process = self._context.Process(target=_search, args=(*given, self._messages), daemon=True)
            process.start()
            self._processes.append(process)
        for _ in ways:
            ready.acquire()
        self.clock = Clock()  # processes have started and images are loaded
        go.set()
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._folder.cleanup()

    def _ways(self) -> list[Way]:
        """Return how each process trains; this is chosen beforehand and not part of the time."""
        with self._context.Pool(1) as pool:
            if self._loop.per_core:
                _, last = pool.apply(_fastest_way, (self._search, [1], self._tried))
                return [(1, last)] * cores()
            return [pool.apply(_fastest_way, (self._search, sorted({1, cores()}), self._tried))]

    def messages(self, seconds: float) -> Iterator[Message]:
        """Yield each measurement until the search or its time ends."""
        while (left := seconds - self.clock.now()) > 0:
            try:
                yield self._messages.get(timeout=min(left, 1.0))
            except Empty:
                if not any(process.is_alive() for process in self._processes):
                    return

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the processes and the clock until the end of the block."""
        with self.clock.stopped():
            self._signal(signal.SIGSTOP)
            yield
            self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for process in self._processes:
            if process.is_alive():
                os.kill(process.pid, number)


def _fastest_way(search: TargetSearch, threads: list[int], tried: float) -> Way:
    """Return the number of threads and the layout that train the middle of the search space fastest."""
    trainer = _Trainer(search, data_of(search.dataset, search.images, 0), LOOPS["b"])
    spec = search.spec()
    layouts = (False, True) if search.model == "cnn" else (False,)
    found = {}
    for way in product(threads, layouts):
        torch.set_num_threads(way[0])
        step = trainer.loop(spec.params({"batch_size": MIDDLE}).model_dump(exclude_none=True), 0, way[1]).step
        seconds_a_step(step, tried / 4)
        found[way] = seconds_a_step(step, tried)
    return min(found, key=lambda way: found[way])


def _search(
    search: TargetSearch,
    loop: Loop,
    seed: int,
    place: int,
    way: Way,
    folder: Path,
    ready: Any,
    go: Any,
    messages: Any,
) -> None:
    """Search as one process of a side."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(way[0])
    torch.set_flush_denormal(loop.averaged)
    trainer = _Trainer(search, data_of(search.dataset, search.images, seed), loop)
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log"))) if loop.per_core else None
    sampler = optuna.samplers.TPESampler(seed=seed + 1000 * place, constant_liar=loop.per_core)
    study = optuna.create_study(
        study_name="study",
        storage=storage,
        sampler=sampler,
        pruner=loop.pruner(),
        direction="maximize",
        load_if_exists=True,
    )
    trainer.warm_up()
    ready.release()
    go.wait()
    ended = MaxTrialsCallback(TRIALS, states=None)
    study.optimize(lambda trial: trainer.objective(trial, way[1], messages.put), callbacks=[ended])
    messages.close()
    messages.join_thread()


class _Trainer:
    """The objective of a loop."""

    def __init__(self, search: TargetSearch, data: TrainingData, loop: Loop) -> None:
        self.search, self.averaged = search, loop.averaged
        self.spec: TuneSpec = search.spec()
        self.train = (scaled(data.train.images), data.train.labels)
        self.validation = (scaled(data.validation.images), data.validation.labels)

    def loop(self, params: dict[str, Any], seed: int, channels_last: bool) -> CarefulBaseline:
        """Return loop B with hyper-parameters."""
        built = self.spec.params(params)
        batches = batches_of(len(self.train[1]), built.batch_size, seed)
        layers = self.spec.layers(built)
        return CarefulBaseline(layers, built.of_optimizer(), *self.train, batches, seed, channels_last=channels_last)

    def warm_up(self) -> None:
        """Take a step, because torch imports much of its code at the first one."""
        loop = self.loop(self.spec.params({}).model_dump(exclude_none=True), 0, False)
        loop.step()
        if self.averaged:
            AveragedModel(loop.model, multi_avg_fn=get_ema_multi_avg_fn(DECAY)).update_parameters(loop.model)

    def objective(self, trial: optuna.Trial, channels_last: bool, report: Callable[[Message], None]) -> float:
        """Train a trial, report each epoch, and return the last validation accuracy."""
        params = self._drawn(trial)
        loop = self.loop(params, trial.number, channels_last)
        average = AveragedModel(loop.model, multi_avg_fn=get_ema_multi_avg_fn(DECAY)) if self.averaged else None
        stream = Stream(len(self.train[1]), params["batch_size"], 0)
        value, taken = 0.0, 0
        for epoch in range(1, EPOCHS + 1):
            until = stream.steps(epoch * STEPS_PER_EPOCH)  # an epoch ends at the same image as Chiffre's
            for _ in range(until - taken):
                loop.step()
                if average is not None:
                    average.update_parameters(loop.model)
            taken = until
            value = accuracy(average or loop.model, *self.validation)
            report((trial.number, params, epoch * STEPS_PER_EPOCH, value))
            trial.report(value, epoch)
            if epoch < EPOCHS and trial.should_prune():
                raise optuna.TrialPruned
        return value

    def _drawn(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draw parameters from the search space of the report, with Optuna's own methods."""
        drawn: dict[str, Any] = {
            "batch_size": trial.suggest_int("batch_size", 3, 100),
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
            "optimizer": trial.suggest_categorical("optimizer", ["adam", "sgd"]),
        }
        if "hidden_size" in self.search.space:
            drawn["hidden_size"] = trial.suggest_int("hidden_size", 500, 2000)
        return drawn | ({"ema_decay": DECAY} if self.averaged else {})
