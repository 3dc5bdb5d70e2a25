"""The facts of a report: rows of the database, read at one instant."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session, col

from ml.analysis.findings import Analysis
from ml.records import TrialState
from ml.specs import TrainSpec, TuneSpec
from worker.database.engine import Database
from worker.database.tables import (
    Artifact,
    Event,
    Job,
    Measurement,
    ModelVersion,
    Opening,
    Rerun,
    RunOff,
    Trial,
    UsedDataset,
)
from worker.ledger.champions import versions_of
from worker.ledger.job_spec import spec_of
from worker.ledger.retention import standing_order
from worker.ledger.run_off_start import last_reruns
from worker.ledger.transitions import REQUEST
from worker.material import Material
from worker.publication.rows import ANSWERS

CURVES = 12  # best trials with a learning curve in the report


@dataclass(frozen=True)
class Facts:
    """A job, its trials and its winner."""

    job: Job
    submitted: TrainSpec | TuneSpec
    dataset: UsedDataset
    trials: list[Trial]  # by number
    material: Material | None  # of the analysis; None if the job searches nothing or no trial has a value
    curves: dict[int, list[Measurement]]  # measurements of the best trials by number, best first
    history: list[Event]  # events of the job, without those of its trials
    workers: list[str]  # names of the machines that worked on the job
    version: ModelVersion | None  # the last published winner
    files: dict[str, Artifact]  # of that version, by kind: checkpoint, onnx, test_outputs
    opening: int | None  # number of openings of these test images up to this version's own, over all jobs
    run_off: RunOff | None  # of the last run
    reruns: list[Rerun]
    latencies: dict[int, float]  # seconds for one image, by number of the published trial

    @property
    def spec(self) -> TuneSpec:
        """The submitted specification as a search."""
        return self.submitted.as_tune()

    @property
    def with_value(self) -> list[Trial]:
        """The trials that have a value, by number."""
        return [trial for trial in self.trials if trial.value is not None]

    @property
    def best(self) -> list[Trial]:
        """The trials that have a value, best first; of equals the first one started."""
        return sorted(self.with_value, key=lambda trial: standing_order(self.job, trial))

    @property
    def unfinished(self) -> list[Trial]:
        """The trials that failed, diverged or were cancelled."""
        states = (TrialState.FAILED, TrialState.DIVERGED, TrialState.CANCELLED)
        return [trial for trial in self.trials if trial.state in states]

    def analysis(self) -> Analysis | None:
        """Compute the analysis of the hyper-parameters; None if there is nothing to compare."""
        found = None if self.material is None else self.material.analysis()
        return found if found and found.parameters else None

    def trial(self, number: int) -> Trial | None:
        """Return a trial by its number, if it exists."""
        return next((trial for trial in self.trials if trial.number == number), None)


def facts_of(database: Database, job_id: str) -> Facts:
    """Read the facts of a job that has trials."""
    with database.at_one_instant() as session:
        job = session.get_one(Job, job_id)
        submitted = spec_of(session, job)
        trials = list(session.scalars(select(Trial).where(col(Trial.job_id) == job_id).order_by(col(Trial.number))))
        with_value = [trial for trial in trials if trial.value is not None]
        best = sorted(with_value, key=lambda trial: standing_order(job, trial))[:CURVES]
        reruns = last_reruns(session, job)
        # Other trials of a front are published too, but only the winner has a test accuracy.
        of_winners = (col(ModelVersion.job_id) == job_id, col(ModelVersion.test_accuracy).is_not(None))
        version = session.scalar(select(ModelVersion).where(*of_winners).order_by(col(ModelVersion.run).desc()))
        return Facts(
            job=job,
            submitted=submitted,
            dataset=session.get_one(UsedDataset, job.dataset_sha256),
            trials=trials,
            material=Material.of(session, job) if with_value and job.kind == "tune" else None,
            curves={trial.number: _measurements(session, trial) for trial in best},
            history=_history(session, job),
            workers=_workers(session, job),
            version=version,
            files={} if version is None else _files(session, version),
            opening=_opening(session, version),
            run_off=None if not reruns else session.get(RunOff, (job_id, reruns[0].run)),
            reruns=reruns,
            latencies=_latencies(session, job_id, trials),
        )


def _measurements(session: Session, trial: Trial) -> list[Measurement]:
    of_trial = select(Measurement).where(col(Measurement.trial_id) == trial.id)
    return list(session.scalars(of_trial.order_by(col(Measurement.step))))


def _history(session: Session, job: Job) -> list[Event]:
    of_job = (col(Event.job_id) == job.id, col(Event.trial).is_(None))
    return list(session.scalars(select(Event).where(*of_job).order_by(col(Event.sequence))))


def _workers(session: Session, job: Job) -> list[str]:
    """Return the hosts of the processes that changed states of the job or its trials."""
    owners = session.scalars(select(col(Event.by)).where(col(Event.job_id) == job.id).distinct())
    hosts = (owner.rsplit(":", 2)[0] for owner in owners if owner not in (None, REQUEST))
    return sorted({host.removeprefix("api ") for host in hosts})


def _latencies(session: Session, job_id: str, trials: list[Trial]) -> dict[int, float]:
    versions = versions_of(session, job_id)
    published = ((trial.number, versions.get((trial.number, trial.value))) for trial in trials)
    return {number: one.latency_seconds for number, one in published if one and one.latency_seconds is not None}


def _files(session: Session, version: ModelVersion) -> dict[str, Artifact]:
    own = [session.get_one(Artifact, key) for key in (version.checkpoint_id, version.onnx_id)]
    # If several runs published the same trial, the newest file belongs to the last run.
    of_trial = (col(Artifact.job_id) == version.job_id, col(Artifact.trial) == version.trial)
    answers = session.scalar(
        select(Artifact).where(*of_trial, col(Artifact.kind) == ANSWERS).order_by(col(Artifact.id).desc()).limit(1)
    )
    return {file.kind: file for file in [*own, *([answers] if answers else [])]}


def _opening(session: Session, version: ModelVersion | None) -> int | None:
    """Count the openings of a version's test images up to the version's own."""
    if version is None:
        return None
    of_run: Any = (col(Opening.job_id) == version.job_id, col(Opening.run) == version.run)
    own = session.scalar(select(Opening).where(*of_run))
    if own is None:
        return None
    same = (col(Opening.dataset_sha256) == own.dataset_sha256, col(Opening.split) == own.split)
    return session.scalar(select(func.count()).select_from(Opening).where(*same, col(Opening.id) <= own.id))
