"""The judge of incumbents: each is trained again on five fresh seeds and cuts, as far as its trial had come."""

import json
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from statistics import mean
from types import TracebackType
from typing import Any, Self

from benchmarks.machine import cores
from benchmarks.results import read, write
from benchmarks.study.incumbents import Incumbent
from benchmarks.study.searches import TargetSearch, data_of
from ml.records import PackRecord
from ml.seeds import SeedPurpose, derive
from ml.training.lane import TrainingData
from ml.training.process import process_settings, warm_up
from ml.training.retraining import Retraining, retrain

CUTS = range(10_000, 10_005)  # seeds of cuts and weights that no search uses
JUDGED = Path(__file__).parents[2] / ".bench" / "study" / "judged.json"


class Judge:
    """Accuracies of retrained incumbents, kept in a file so that a configuration is trained once."""

    def __init__(self, file: Path = JUDGED) -> None:
        context = get_context("forkserver")  # torch must not compute before a fork
        self._file = file
        self._known: dict[str, float] = read(file)
        self._pool = ProcessPoolExecutor(cores(), mp_context=context, initializer=_ready)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def accuracies(self, search: TargetSearch, incumbents: Sequence[Incumbent]) -> list[list[float]]:
        """Return the validation accuracies of each incumbent, 0..1, one for each cut."""
        missing: dict[tuple[str, int], set[int]] = defaultdict(set)  # steps by parameters and cut
        for one in incumbents:
            for cut in CUTS:
                if _name(search, one, cut) not in self._known:
                    missing[json.dumps(one.params, sort_keys=True), cut].add(one.step)
        # The longest first, so that no core waits for the last one.
        tasks = sorted(missing.items(), key=lambda task: (-max(task[1]), json.loads(task[0][0])["batch_size"]))
        futures = [
            (params, cut, self._pool.submit(retrained, search, json.loads(params), sorted(steps), cut))
            for (params, cut), steps in tasks
        ]
        for params, cut, future in futures:
            for step, accuracy in future.result().items():
                self._known[_key(search, params, step, cut)] = accuracy
            write(self._file, self._known)
        return [[self._known[_name(search, one, cut)] for cut in CUTS] for one in incumbents]

    def mean(self, search: TargetSearch, incumbent: Incumbent) -> float:
        """Return the mean accuracy of an incumbent."""
        return mean(self.accuracies(search, [incumbent])[0])


def _name(search: TargetSearch, incumbent: Incumbent, cut: int) -> str:
    return _key(search, json.dumps(incumbent.params, sort_keys=True), incumbent.step, cut)


def _key(search: TargetSearch, params: str, step: int, cut: int) -> str:
    return f"{search.model} {search.dataset} {search.images} {step} {cut} {params}"


def _ready() -> None:
    process_settings()
    warm_up()


@lru_cache
def _data(dataset: str, images: int | None, cut: int) -> TrainingData:
    return data_of(dataset, images, cut)


def retrained(search: TargetSearch, params: dict[str, Any], steps: list[int], cut: int) -> dict[int, float]:
    """Train a configuration alone on a cut, and return its validation accuracy at each step.

    A trial that diverges would not be published; it counts with 0 from then on.
    """
    record = PackRecord(derive(cut, SeedPurpose.STREAM, 0), [])
    found: dict[int, float] = dict.fromkeys(steps, 0.0)
    again = [Retraining(0, params, steps[-1])]
    for reached in retrain(
        search.spec(), _data(search.dataset, search.images, cut), record, again, cut, lambda pack: False
    ):
        for _, measured in reached:
            if measured is not None and measured.step in found and measured.finite:
                found[measured.step] = measured.val_accuracy or 0.0
    return found
