"""The overhead of sampling and recording in a job, compared with its training.

It writes a job of 1,000 trials of the CNN into a SQLite ledger. TPE draws each trial from the earlier ones, and the
trial is recorded with its rungs, as a trainer does. Only the training is left out; it is measured separately on some
trials of the same job. A pack has 24 trials, including refills. The program prints milliseconds per trial for drawing
and recording at the 10th, 100th and 1,000th trial, and their share of the job.
"""

import argparse
import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.results import RESULTS, taken, write
from ml.datasets import datasets
from ml.records import Event, Finished, Measured, RungResult, Started, TrialRecord, TrialState
from ml.specs import TuneSpec
from ml.training.lane import TrainingData
from ml.training.process import process_settings, warm_up
from ml.tuning.book import MemoryBook
from ml.tuning.search import Search
from ml.tuning.tune import tune
from worker.database.engine import Database
from worker.database.migrations import migrate
from worker.ledger.leases import Claim, Leases
from worker.ledger.ledger import Ledger

SPEC: dict[str, Any] = {
    "model": "cnn",
    "search_space": {
        "batch_size": {"type": "int", "low": 3, "high": 100},
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    },
    "pruner": {"name": "hyperband", "min_epochs": 0.1},
    "budget": {"trials": 1000, "epochs": 10},
    "lanes": 8,
}
WINDOW = 10  # trials; each figure is a median over them
PACK = 24  # trials: eight lanes, each refilled twice


class IdleTrainer:
    """A trainer that does everything except training."""

    def __init__(self, folder: Path, spec: TuneSpec) -> None:
        database = Database(f"sqlite:///{folder / 'overhead.db'}")
        migrate(database)
        self.ledger, self.search = Ledger(database), Search(spec)
        self.ledger.accept(spec)
        claim = Leases(database, "benchmark", 3600).claim()
        if claim is None:
            raise RuntimeError("the ledger has no work although a job was accepted")
        self.claim: Claim = claim
        self.seen = 0
        self.like: dict[str, Any] | None = None

    def trial(self, number: int) -> tuple[float, float]:
        """Draw a trial and record it with two rungs; return the seconds of drawing and of recording."""
        started = perf_counter()
        if number:
            self.ledger.reserve(self.claim, lambda _: True)
        recording = perf_counter() - started
        begins = number % PACK == 0
        started = perf_counter()
        params, record = self.search.ask(number, None if begins else self.like)
        drawing = perf_counter() - started
        self.like = record.suggestion if begins else self.like
        started = perf_counter()
        self.ledger.record(self.claim, [_started(record, params.model_dump(exclude_none=True))], {})
        for events in _rungs(number):
            self._catch_up()
            self.ledger.record(self.claim, events, {})
        return drawing, recording + perf_counter() - started

    def _catch_up(self) -> None:
        records, self.seen = self.ledger.changes(self.claim.job_id, self.seen)
        for record in records:
            self.search.apply(record)


def _started(record: TrialRecord, params: dict[str, Any]) -> Started:
    return Started(record.number, params, record.suggestion or {}, record.attrs, 0, 0, 0)


def _rungs(number: int) -> Iterator[list[Event]]:
    """Yield the events of a trial that is pruned at its second rung; its accuracy is made up and has no effect."""
    accuracy = 0.9 + (number * 7919 % 1000) / 10_000
    first, second = (RungResult(step, step * 5040, 0.3, 0.3, accuracy, 1.0) for step in (1, 3))
    yield [Measured(number, first, {})]
    yield [Measured(number, second, {}), Finished(number, TrialState.PRUNED, "pruned", second, accuracy, None)]


def training_seconds(trials: int, epochs: int) -> float:
    """Return the mean seconds of one core per trial, over the first trials of this job."""
    spec = TuneSpec.model_validate({**SPEC, "budget": {"trials": trials, "epochs": epochs}})
    data = TrainingData.load(datasets[spec.dataset.name], spec.split, spec.seed)
    started = perf_counter()
    tune(spec, data, MemoryBook(spec), Search(spec))
    return (perf_counter() - started) / trials


def main() -> None:
    """Measure, and print a table and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="120 trials; writes no results")
    quick = parser.parse_args().quick
    process_settings()
    warm_up()
    trials = 120 if quick else 1000
    with TemporaryDirectory() as folder:
        recorder = IdleTrainer(
            Path(folder), TuneSpec.model_validate({**SPEC, "budget": {"trials": trials, "epochs": 10}})
        )
        took = [recorder.trial(number) for number in range(trials)]
    training = training_seconds(4, 1) if quick else training_seconds(48, 10)
    rows = []
    print(f"training: {1000 * training:.0f} ms per trial, one core\n{'trial':>6} {'drawing':>10} {'recording':>10}  ms")
    for at in (n for n in (10, 100, 1000) if n <= trials):
        drawing, recording = (1000 * statistics.median(t[i] for t in took[at - WINDOW : at]) for i in (0, 1))
        print(f"{at:>6} {drawing:>10.1f} {recording:>10.1f}")
        rows.append({"work": f"trial {at}", "drawing_ms": drawing, "recording_ms": recording})
    spent = sum(map(sum, took)) / trials
    share = spent / (spent + training)
    print(f"share of a job of {trials} trials: {100 * share:.1f} %")
    found = {"rows": rows, "training_ms": 1000 * training, "share": share, "trials": trials, "n": WINDOW}
    if not quick:
        write(RESULTS / "overhead.json", {**taken(), **found})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
