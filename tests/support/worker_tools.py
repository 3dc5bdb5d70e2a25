"""A ledger, two workers, and trials that need no training."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from sqlalchemy import select
from sqlmodel import col

from ml.artifacts import Saved
from ml.datasets import FindInfo, datasets
from ml.records import Finished, Measured, RungResult, Started, TrialRecord, TrialState
from ml.specs import TuneSpec
from worker.database.engine import Database
from worker.database.tables import Job, Pack, Trial
from worker.ledger import job_spec
from worker.ledger.leases import Claim, Leases
from worker.ledger.ledger import Ledger
from worker.ledger.requests import Controls
from worker.uploaded_datasets import dataset_info

FILE = Saved("0" * 64, 1)


def tune_spec(find: FindInfo = datasets.__getitem__, /, **fields: Any) -> TuneSpec:
    """Return a small tuning job."""
    return TuneSpec.of({"model": "perceptron", "dataset": "digits", "budget": {"trials": 2}, **fields}, find)


def measurement(epoch: int, accuracy: float | None, loss: float | None = 0.5) -> RungResult:
    """Return the measurement of an epoch."""
    return RungResult(epoch * 10, epoch * 100, loss, loss, accuracy, 0.25)


@dataclass
class Work:
    """A database with its ledger and two workers."""

    database: Database
    ledger: Ledger
    leases: Leases
    other: Leases

    def accept(self, **fields: Any) -> Job:
        """Post a job."""
        with self.database.reading() as session:
            spec = tune_spec(partial(dataset_info, session), **fields)
        return self.ledger.accept(spec)

    def spec(self, job: Job) -> TuneSpec:
        """Return the specification of a job."""
        with self.database.reading() as session:
            return job_spec.tune_spec(session, job)

    def start(self, claim: Claim, number: int) -> None:
        """Begin a trial."""
        params = {"batch_size": 32, "learning_rate": 0.01, "optimizer": "adam"}
        self.ledger.record(claim, [Started(number, params, {"learning_rate": 0.01}, {}, 1, 2, 0)], {})

    def measure(self, claim: Claim, number: int, measured: RungResult, **attrs: Any) -> None:
        """Record a rung of a trial."""
        self.ledger.record(claim, [Measured(number, measured, attrs)], {})

    def reserved(self, claim: Claim) -> list[TrialRecord]:
        """Return the claimed pack's trials that have not ended."""
        trials = self.ledger.pack(claim).record.trials
        return [trial for trial in trials if trial.state == TrialState.RUNNING]

    def cancel(self, job: Job) -> Job:
        """Cancel a job."""
        return self.controls.cancel(job.id)

    @contextmanager
    def unneeded(self) -> Iterator[list[str]]:
        """Yield a list that collects the keys of unneeded files, which are not removed."""
        found: list[str] = []
        before, self.database.on_unneeded = self.database.on_unneeded, found.extend
        yield found
        self.database.on_unneeded = before

    @property
    def controls(self) -> Controls:
        """The controls that users of a job have."""
        return Controls(self.database)

    def pack(self, trials: int, leases: Leases | None = None) -> Claim:
        """Claim a pack and begin this many trials in it."""
        claim = (leases or self.leases).claim()
        assert claim is not None
        records = self.reserved(claim)
        while len(records) < trials and (record := self.ledger.reserve(claim, lambda number: True)):
            records.append(record)
        for record in records:
            self.start(claim, record.number)
        return claim

    def trials(self) -> list[Trial]:
        """Return all trials as they are now, by number."""
        with self.database.reading() as session:
            return list(session.scalars(select(Trial).order_by(col(Trial.number))))

    def packs(self) -> list[Pack]:
        """Return all packs as they are now, by id."""
        with self.database.reading() as session:
            return list(session.scalars(select(Pack).order_by(col(Pack.id))))

    def run_trial(self, claim: Claim, value: float | None, state: TrialState = TrialState.COMPLETED) -> int:
        """Run the claimed pack's trial to its end in one epoch, close the pack, and return the trial's number."""
        (record,) = self.reserved(claim)
        best = measurement(1, value)
        self.start(claim, record.number)
        finished = Finished(record.number, state, "for the test", best, value, None)
        saved = {record.number: (f"{claim.job_id}/{record.number}", FILE)} if state.judged else {}
        self.ledger.record(claim, [Measured(record.number, best, {}), finished], saved)
        self.leases.close(claim)
        return record.number

    def job(self, job: Job) -> Job:
        """Return the job as it is now."""
        with self.database.reading() as session:
            return session.get_one(Job, job.id)
