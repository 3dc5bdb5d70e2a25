"""Publication as rows: the winner and other trials of a job's front become versions, the winner perhaps champion."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as package_version
from typing import Any, cast

from sqlalchemy import Select, func, select
from sqlmodel import Session, col

from worker.artifacts.new_files import Stored
from worker.database.clock import clock
from worker.database.engine import Database, one_at_a_time
from worker.database.tables import Artifact, Job, JobState, ModelVersion, RunOff, Trial
from worker.ledger.champions import challenge
from worker.ledger.files import add_file
from worker.ledger.leases import Claim, fence
from worker.ledger.packs import end_pack
from worker.ledger.requests import run_again
from worker.ledger.retention import on_front, runner_up
from worker.ledger.settlement import settle
from worker.ledger.transitions import DISCARDED, lease_change, move_job, note_opening, opening_of, reasons

ANSWERS = "test_outputs"  # the kind of the file with a winner's outputs for the test images, float32 [n, classes]
MAX_FRONT = 8  # trials besides the winner that become versions: the measurements of each take a second


@dataclass(frozen=True)
class Chosen:
    """A trial that is to become a version, and its checkpoint."""

    job: Job
    trial: Trial
    checkpoint: Artifact


@dataclass(frozen=True)
class Published:
    """The facts that publication adds to a trial."""

    onnx: Stored
    shape: list[int]
    classes: list[str]
    weights: int
    test_loss: float | None = None
    test_accuracy: float | None = None  # None if the test images were not opened for it
    calibration: dict[str, Any] | None = None  # ml.prediction.calibration.Calibration as JSON
    architecture: str | None = None  # SHA-256 of the layers that compute an answer
    latency_seconds: float | None = None  # of one image on one core, the median
    environment: dict[str, Any] | None = None  # hardware and package versions of this worker
    # Its outputs for the test images, so that a report need not open the images again.
    answers: Stored | None = None


class PublicationRows:
    """The reads and writes of publication, for the holder of the pack's lease."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def winner(self, claim: Claim) -> Chosen:
        """Return the trial to publish: the winner of the job's run-off, or without a run-off the job's best trial.

        The best trial also replaces a winner that has lost its checkpoint: it was damaged, and retraining failed.
        """
        with self.database.reading() as session:
            job = session.get_one(Job, claim.job_id)
            run_off = session.get(RunOff, (job.id, job.run))
            number = cast("int", job.best_trial)
            if run_off is not None and session.scalar(_checkpoint_of(job, run_off.winner)) is not None:
                number = run_off.winner
            return _chosen(session, job, number)

    def front(self, claim: Claim, winner: Chosen) -> list[Chosen]:
        """Return the other trials on the front of the claimed pack's job, best first, at most MAX_FRONT.

        Trials that are versions already are left out.
        """
        with self.database.reading() as session:
            job = session.get_one(Job, claim.job_id)
            known = select(col(ModelVersion.checkpoint_id)).where(col(ModelVersion.job_id) == job.id)
            published = set(session.scalars(known))
            found = [_chosen(session, job, number) for number in on_front(session, job)]
            others = [chosen for chosen in found if chosen.trial.number != winner.trial.number]
            return [chosen for chosen in others if chosen.checkpoint.id not in published][:MAX_FRONT]

    def latency(self, architecture: str, environment: dict[str, Any]) -> float | None:
        """Return the latency in seconds of the newest version of an architecture in an environment; None if unknown."""
        known = (col(ModelVersion.architecture) == architecture, col(ModelVersion.latency_seconds).is_not(None))
        with self.database.reading() as session:
            versions = session.scalars(select(ModelVersion).where(*known).order_by(col(ModelVersion.id).desc()))
            return next((one.latency_seconds for one in versions if one.environment == environment), None)

    def discard(self, claim: Claim, winner: Chosen, why: str) -> None:
        """Train the winner again, because its checkpoint is damaged. If this happens again, the job fails.

        A limit on seconds does not end this training. The file stays until the janitor removes it.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            owner = pack.lease_owner
            with lease_change(session, job):
                end_pack(session, pack)
            if DISCARDED in reasons(session, winner.trial):
                job.error = why
                settle(session, job, owner)
                return
            session.delete(session.get_one(Artifact, winner.checkpoint.id))
            session.flush()
            job.stop_reason = None
            move_job(session, job, JobState.RUNNING, why, owner)
            run_again(session, job, session.get_one(Trial, winner.trial.id), DISCARDED, owner or "")
            job.best_trial, job.best_value = runner_up(session, job)

    def open_test(self, claim: Claim) -> None:
        """Record that the test images are about to be opened; once for each run of a job."""
        with self.database.writing() as session:
            job, _ = fence(session, claim)
            note_opening(session, job, job.spec["split"])

    def publish(
        self, claim: Claim, winner: Chosen, published: Published, others: Sequence[tuple[Chosen, Published]] = ()
    ) -> None:
        """Make the winner a version, and end pack and job with it.

        The others become versions too, but only the winner can become champion by rule.

        Raises:
            LeaseLost: if another worker has claimed the pack or the job was cancelled.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            owner = pack.lease_owner
            version = self._version(session, winner, published)
            opening = opening_of(session, job)
            if opening is not None:
                opening.version_id = version.id
            challenge(session, version)
            for chosen, made in others:
                self._version(session, chosen, made)
            with lease_change(session, job):
                end_pack(session, pack)
            settle(session, job, owner)

    def _version(self, session: Session, chosen: Chosen, published: Published) -> ModelVersion:
        job, trial = chosen.job, chosen.trial
        onnx_id = add_file(session, job.id, "onnx", published.onnx, trial=trial.number)
        if published.answers is not None:
            add_file(session, job.id, ANSWERS, published.answers, trial=trial.number)
        one_at_a_time(session, f"versions of {job.model}")
        newest = session.scalar(select(func.max(ModelVersion.version)).where(col(ModelVersion.model) == job.model))
        version = ModelVersion(
            model=job.model,
            version=(newest or 0) + 1,
            dataset=job.dataset,
            dataset_sha256=job.dataset_sha256,
            split=job.spec["split"],
            objective=_objective(job.spec),
            value=cast("float", trial.value),
            job_id=job.id,
            run=job.run,
            trial=trial.number,
            params=trial.params or {},
            shape=published.shape,
            classes=published.classes,
            weights=published.weights,
            val_loss=cast("float", trial.val_loss),
            val_accuracy=cast("float", trial.val_accuracy),
            test_loss=published.test_loss,
            test_accuracy=published.test_accuracy,
            checkpoint_id=cast("int", chosen.checkpoint.id),
            onnx_id=onnx_id,
            code_version=package_version("chiffre"),
            calibration=published.calibration,
            architecture=published.architecture,
            latency_seconds=published.latency_seconds,
            environment=published.environment,
            created_at=clock(session),
        )
        session.add(version)
        session.flush()
        return version


def _chosen(session: Session, job: Job, number: int) -> Chosen:
    """Return a trial of a job with its checkpoint."""
    trial = session.scalars(select(Trial).where(col(Trial.job_id) == job.id, col(Trial.number) == number)).one()
    return Chosen(job, trial, session.scalars(_checkpoint_of(job, number)).one())


def _checkpoint_of(job: Job, number: int) -> Select[Artifact]:
    of_trial = (col(Artifact.job_id) == job.id, col(Artifact.trial) == number, col(Artifact.kind) == "checkpoint")
    return select(Artifact).where(*of_trial)


def _objective(spec: dict[str, Any]) -> str:
    """Return the name of the values that versions are compared by; losses of different kinds are not comparable."""
    return f"{spec['objective']}:{spec['loss']}" if spec["objective"] == "val_loss" else str(spec["objective"])
