"""The ledger: what happens to jobs and trials, written once and only by whoever holds the lease."""

import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import cast

from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from ml.artifacts import Saved
from ml.datasets import datasets
from ml.records import Event, Finished, Measured, Started, TrialRecord, TrialState
from ml.specs import TrainSpec, TuneSpec
from worker.db import Database
from worker.journal import begin_trial, clock, job_changed, lock_job, trial_changed, trial_stamped
from worker.leases import Claim, fence
from worker.settlement import settle, spent
from worker.tables import Artifact, Dataset, Job, JobState, Measurement, StopReason, Trial

Checkpointed = tuple[str, Saved]  # a checkpoint's path, and what was written there


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

    def reserve(self, claim: Claim, fits: Callable[[int], bool]) -> TrialRecord | None:
        """One more trial for a claimed pack; None where the job begins no more, or `fits` refuses the next number."""
        with self.database.writing() as session:
            pack = fence(session, claim)
            job = lock_job(session, claim.job_id)
            begins = job.state == JobState.RUNNING and job.stop_reason is None and spent(session, job) is None
            if not begins or not fits(job.reserved):
                return None
            return TrialRecord(begin_trial(session, job, pack).number, TrialState.RUNNING)

    def lanes(self, job_id: str) -> int | None:
        """How many trials of a job train together; None before it has run."""
        with self.database.reading() as session:
            return session.get_one(Job, job_id).lanes

    def settle_pack(self, claim: Claim, key: str, lanes: int) -> int:
        """Note what a claimed pack's trials share, and how many lanes it has: the job's, which its first pack settles.

        One that was halved since trainers died on it keeps its fewer.
        """
        with self.database.writing() as session:
            pack = fence(session, claim)
            job = lock_job(session, claim.job_id)
            job.lanes = job.lanes or lanes
            pack.lanes = min(pack.lanes, job.lanes) if pack.key else job.lanes
            pack.key = key
            return pack.lanes

    def record(self, claim: Claim, events: Sequence[Event], saved: dict[int, Checkpointed]) -> list[str]:
        """Write down what happened to trials of the claimed pack, all of it or nothing.

        `saved` has the checkpoint of each trial that may lead. Returns the paths of files that no row needs any more.
        LeaseLost where another has claimed the pack.
        """
        unneeded: list[str] = []
        with self.database.writing() as session:
            pack = fence(session, claim)
            job = lock_job(session, claim.job_id)
            numbers = {event.number for event in events}
            of_pack = (col(Trial.pack_id) == pack.id, col(Trial.number).in_(numbers))
            trials = {trial.number: trial for trial in session.scalars(select(Trial).where(*of_pack))}
            for event in events:
                trial = trials[event.number]
                match event:
                    case Started():
                        _start(session, job, trial, event)
                    case Measured():
                        _measure(session, job, trial, event, claim)
                    case Finished():
                        _finish(session, job, trial, event)
                        if event.number in saved:
                            unneeded += _crown(session, job, trial, saved[event.number])
                        trial_changed(session, job, trial, pack.lease_owner)
                session.flush()
        return unneeded

    def leads(self, claim: Claim, number: int, value: float) -> bool:
        """Whether a value would make a trial the best of its job so far."""
        with self.database.reading() as session:
            return _leads(session.get_one(Job, claim.job_id), number, value)

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


def _start(session: Session, job: Job, trial: Trial, event: Started) -> None:
    """A trial has its hyper-parameters; what an earlier attempt measured is forgotten."""
    session.execute(delete(Measurement).where(col(Measurement.trial_id) == trial.id))
    trial.params, trial.suggestion, trial.attrs = event.params, event.suggestion, event.attrs
    trial.init_seed, trial.start_step = event.init_seed, event.start_step
    trial.epochs_run, trial.seconds = 0.0, 0.0
    trial_stamped(job, trial)


def _measure(session: Session, job: Job, trial: Trial, event: Measured, claim: Claim) -> None:
    """A trial has reached a rung."""
    row = Measurement(trial_id=cast("int", trial.id), job_id=job.id, **asdict(event.measurement))
    row.sequence, row.lease_epoch = trial_stamped(job, trial), claim.epoch
    session.add(row)
    trial.attrs = event.attrs
    trial.epochs_run = event.measurement.epoch
    trial.seconds += event.measurement.seconds


def _finish(session: Session, job: Job, trial: Trial, event: Finished) -> None:
    """A trial has ended."""
    trial.state, trial.reason, trial.finished_at = event.state, event.reason, clock(session)
    trial.value = event.value if event.state.judged else None
    if event.best:
        trial.best_epoch = event.best.epoch
        trial.train_loss, trial.val_loss = event.best.train_loss, event.best.val_loss
        trial.val_accuracy = event.best.val_accuracy
    job.failures += event.state == TrialState.FAILED


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


def _crown(session: Session, job: Job, trial: Trial, saved: Checkpointed) -> list[str]:
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
