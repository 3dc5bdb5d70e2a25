"""The ledger: what happens to jobs and trials, written once and only by whoever holds the lease."""

import secrets
from collections import defaultdict
from dataclasses import asdict
from typing import cast

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from ml.artifacts import Saved
from ml.datasets import datasets
from ml.records import Finished, Measured, Started, TrialRecord, TrialState
from ml.specs import TrainSpec, TuneSpec
from worker.db import Database
from worker.journal import clock, job_changed, lock_job, trial_changed
from worker.leases import Claim, fence
from worker.settlement import settle
from worker.tables import Artifact, Dataset, Job, JobState, Measurement, StopReason, Trial


def tune_spec(job: Job) -> TuneSpec:
    """The work that a job asks for."""
    return TrainSpec.model_validate(job.spec).as_tune() if job.kind == "train" else TuneSpec.model_validate(job.spec)


class Ledger:
    """The transitions of jobs and trials."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def accept(self, spec: TrainSpec | TuneSpec) -> Job:
        """Write a new job down; from here on it is not lost."""
        tune = spec.as_tune() if isinstance(spec, TrainSpec) else spec
        dataset = datasets[spec.dataset]
        with self.database.writing() as session:
            _know_dataset(session, spec.dataset)
            job = Job(
                id=secrets.token_hex(6),
                kind="train" if isinstance(spec, TrainSpec) else "tune",
                spec=spec.model_dump(mode="json"),
                state=JobState.QUEUED,
                model=spec.model,
                dataset=spec.dataset,
                dataset_sha256=dataset.sha256,
                maximize=spec.maximize,
                trial_limit=tune.trial_limit,
                seconds_limit=tune.budget.seconds,
                created_at=clock(session),
            )
            session.add(job)
            job_changed(session, job, JobState.QUEUED)
            return job

    def cancel(self, job_id: str) -> Job:
        """Ask a job to end; one that has ended stays as it is. NotFound where there is none."""
        with self.database.writing() as session:
            job = lock_job(session, job_id)
            if not JobState(job.state).final and job.stop_reason != StopReason.CANCELLED:
                job.stop_reason = StopReason.CANCELLED
                job_changed(session, job, JobState.STOPPING, "cancelled by request")
                settle(session, job)
            return job

    def reservations(self, claim: Claim) -> list[TrialRecord]:
        """The trials of a claimed pack that are still to be run, begun ones with what they drew."""
        with self.database.reading() as session:
            trials = session.scalars(
                select(Trial)
                .where(col(Trial.pack_id) == claim.pack_id, col(Trial.state) == TrialState.RUNNING)
                .order_by(col(Trial.number))
            )
            return [TrialRecord(t.number, TrialState.RUNNING, t.suggestion) for t in trials]

    def start(self, claim: Claim, event: Started) -> None:
        """A trial has its hyper-parameters; what an earlier attempt measured is forgotten."""
        with self.database.writing() as session:
            job, trial = self._fenced(session, claim, event.number)
            session.execute(delete(Measurement).where(col(Measurement.trial_id) == trial.id))
            trial.params, trial.suggestion, trial.attrs = event.params, event.suggestion, event.attrs
            trial.init_seed, trial.start_step = event.init_seed, event.start_step
            trial.epochs_run, trial.seconds = 0, 0.0
            trial_changed(session, job, trial, noted=False)

    def measure(self, claim: Claim, event: Measured) -> None:
        """A trial has reached a rung."""
        with self.database.writing() as session:
            job, trial = self._fenced(session, claim, event.number)
            session.add(Measurement(trial_id=cast("int", trial.id), **asdict(event.measurement)))
            trial.attrs = event.attrs
            trial.epochs_run += 1
            trial.seconds += event.measurement.seconds
            trial_changed(session, job, trial, noted=False)

    def leads(self, claim: Claim, number: int, value: float) -> bool:
        """Whether a value would make a trial the best of its job so far."""
        with self.database.reading() as session:
            return _leads(session.get_one(Job, claim.job_id), number, value)

    def finish(self, claim: Claim, event: Finished, value: float | None, saved: tuple[str, Saved] | None) -> list[str]:
        """A trial has ended; where it leads, `saved` (path and hash) is its checkpoint.

        Returns the paths of files that no row needs any more.
        """
        with self.database.writing() as session:
            job, trial = self._fenced(session, claim, event.number)
            trial.state, trial.reason, trial.finished_at = event.state, event.reason, clock(session)
            trial.value = value if event.state.judged else None
            if event.best:
                trial.best_epoch = event.best.epoch
                trial.train_loss, trial.val_loss = event.best.train_loss, event.best.val_loss
                trial.val_accuracy = event.best.val_accuracy
            job.failures += event.state == TrialState.FAILED
            unneeded = _crown(session, job, trial, saved) if saved else []
            trial_changed(session, job, trial, noted=True)
            return unneeded

    def changes(self, job_id: str, after: int) -> tuple[list[TrialRecord], int]:
        """The trials of a job that changed after number `after` of its counter, and the number to ask from next."""
        with self.database.reading() as session:
            trials = session.scalars(
                select(Trial)
                .where(col(Trial.job_id) == job_id, col(Trial.sequence) > after)
                .order_by(col(Trial.sequence))
            ).all()
            if not trials:
                return [], after
            objective = session.get_one(Job, job_id).spec["objective"]
            values = _values(session, job_id, after, objective)
            records = [
                TrialRecord(t.number, TrialState(t.state), t.suggestion, t.attrs, values[cast("int", t.id)], t.value)
                for t in trials
            ]
            return records, trials[-1].sequence

    def _fenced(self, session: Session, claim: Claim, number: int) -> tuple[Job, Trial]:
        """The job, locked, and a running trial of the claimed pack; LeaseLost where another has claimed it."""
        fence(session, claim)
        job = lock_job(session, claim.job_id)
        statement = select(Trial).where(col(Trial.pack_id) == claim.pack_id, col(Trial.number) == number)
        return job, session.scalars(statement).one()


def _know_dataset(session: Session, name: str) -> None:
    """Write a data set down unless it is known; several may do so at once."""
    dataset = datasets[name]
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    row = Dataset(
        sha256=dataset.sha256,
        name=name,
        images=dataset.size,
        shape=list(dataset.shape),
        classes=list(dataset.classes),
    )
    session.execute(insert(Dataset).values(row.model_dump()).on_conflict_do_nothing())


def _leads(job: Job, number: int, value: float) -> bool:
    """Whether a value is the best of a job so far; of equals the trial that was begun first leads."""
    if job.best_value is None or job.best_trial is None:
        return True
    if value == job.best_value:
        return number < job.best_trial
    return value > job.best_value if job.maximize else value < job.best_value


def _crown(session: Session, job: Job, trial: Trial, saved: tuple[str, Saved]) -> list[str]:
    """Make a trial the best of its job if it leads; the paths of checkpoints that are not needed any more."""
    path, file = saved
    if trial.value is None or not _leads(job, trial.number, trial.value):
        return [path]
    superseded = session.scalars(
        select(Artifact).where(
            col(Artifact.job_id) == job.id, col(Artifact.kind) == "checkpoint", col(Artifact.trial) == job.best_trial
        )
    ).all()
    for artifact in superseded:
        session.delete(artifact)
    job.best_trial, job.best_value = trial.number, trial.value
    session.add(
        Artifact(
            job_id=job.id,
            trial=trial.number,
            kind="checkpoint",
            path=path,
            sha256=file.sha256,
            size=file.size,
            created_at=clock(session),
        )
    )
    return [artifact.path for artifact in superseded]


def _values(session: Session, job_id: str, after: int, objective: str) -> dict[int, dict[int, float]]:
    """The objective by trial id and step, of the trials of a job that changed after a number of its counter."""
    column = Measurement.val_accuracy if objective == "val_accuracy" else Measurement.val_loss
    rows = session.execute(
        select(col(Measurement.trial_id), col(Measurement.step), col(column))
        .join(Trial, col(Trial.id) == Measurement.trial_id)
        .where(col(Trial.job_id) == job_id, col(Trial.sequence) > after, col(column).is_not(None))
    )
    values: dict[int, dict[int, float]] = defaultdict(dict)
    for trial_id, step, value in rows:
        values[trial_id][step] = value
    return values
