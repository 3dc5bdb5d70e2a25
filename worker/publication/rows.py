"""Publication: a job's winner becomes a version, and the champion where it is better; so do the trials of its front."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as package_version
from typing import Any, cast

from sqlalchemy import Select, func, select
from sqlmodel import Session, col

from ml.artifacts import Saved
from worker.database.engine import Database, one_at_a_time
from worker.database.tables import Artifact, Job, JobState, ModelVersion, Opening, RunOff, Trial
from worker.ledger.champions import challenge
from worker.ledger.leases import Claim, fence
from worker.ledger.packs import end_pack
from worker.ledger.requests import again
from worker.ledger.retention import on_front, runner_up
from worker.ledger.settlement import settle
from worker.ledger.transitions import DISCARDED, account, clock, move_job, reasons

ANSWERS = "test_outputs"  # the kind of the file that holds a winner's outputs for the test images, float32 [n, classes]
MAX_FRONT = 8  # trials beside the winner that become versions: to measure one takes a second


@dataclass(frozen=True)
class Chosen:
    """A trial that is to become a version, and its checkpoint."""

    job: Job
    trial: Trial
    checkpoint: Artifact


@dataclass(frozen=True)
class Published:
    """What publication adds to a trial."""

    onnx_path: str
    onnx: Saved
    shape: list[int]
    classes: list[str]
    weights: int
    test_loss: float | None = None
    test_accuracy: float | None = None  # None where the test images were not opened for it
    calibration: dict[str, Any] | None = None  # ml.prediction.calibration.Calibration as JSON
    architecture: str | None = None  # SHA-256 of what computes an answer
    latency_seconds: float | None = None  # of one image on one core, the median
    environment: dict[str, Any] | None = None  # hardware and versions that it was made on and with
    # The file of what it answered for the test images, so that a report need not open them again.
    answers: tuple[str, Saved] | None = None


class PublicationRows:
    """What publication reads and writes, for whoever holds the lease."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def winner(self, claim: Claim) -> Chosen:
        """The trial that the run-off of the claimed pack's job chose, without one the best.

        The best too where the chosen one has lost its checkpoint since: it was damaged, and training it again failed.
        """
        with self.database.reading() as session:
            job = session.get_one(Job, claim.job_id)
            run_off = session.get(RunOff, (job.id, job.run))
            number = cast("int", job.best_trial)
            if run_off is not None and session.scalar(_checkpoint_of(job, run_off.winner)) is not None:
                number = run_off.winner
            return _chosen(session, job, number)

    def front(self, claim: Claim, winner: Chosen) -> list[Chosen]:
        """The other trials of the claimed pack's job that no other beats in objective and size, the best first.

        Those that are versions already are left out, and of more than MAX_FRONT the worst.
        """
        with self.database.reading() as session:
            job = session.get_one(Job, claim.job_id)
            known = select(col(ModelVersion.checkpoint_id)).where(col(ModelVersion.job_id) == job.id)
            published = set(session.scalars(known))
            found = [_chosen(session, job, number) for number in on_front(session, job)]
            others = [chosen for chosen in found if chosen.trial.number != winner.trial.number]
            return [chosen for chosen in others if chosen.checkpoint.id not in published][:MAX_FRONT]

    def latency(self, architecture: str, environment: dict[str, Any]) -> float | None:
        """What was measured of an architecture on such a machine, for the newest version that has it; None: never."""
        known = (col(ModelVersion.architecture) == architecture, col(ModelVersion.latency_seconds).is_not(None))
        with self.database.reading() as session:
            versions = session.scalars(select(ModelVersion).where(*known).order_by(col(ModelVersion.id).desc()))
            return next((one.latency_seconds for one in versions if one.environment == environment), None)

    def discard(self, claim: Claim, winner: Chosen, why: str) -> None:
        """Train the winner again, as its checkpoint is damaged; a second time the job fails instead.

        A limit in seconds does not end that. The file stays until the janitor finds that no row names it.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            owner = pack.lease_owner
            account(session, job)
            end_pack(session, pack)
            session.flush()
            account(session, job)
            if DISCARDED in reasons(session, winner.trial):
                job.error = why
                settle(session, job, owner)
                return
            session.delete(session.get_one(Artifact, winner.checkpoint.id))
            session.flush()
            job.stop_reason = None
            move_job(session, job, JobState.RUNNING, why, owner)
            again(session, job, session.get_one(Trial, winner.trial.id), DISCARDED, owner or "")
            job.best_trial, job.best_value = runner_up(session, job)

    def open_test(self, claim: Claim) -> None:
        """Write down that the test images are about to be looked at, once a run of a job."""
        with self.database.writing() as session:
            job, _ = fence(session, claim)
            if _opening(session, job) is None:
                opening = Opening(
                    dataset_sha256=job.dataset_sha256,
                    split=job.spec["split"],
                    job_id=job.id,
                    run=job.run,
                    at=clock(session),
                )
                session.add(opening)

    def publish(
        self, claim: Claim, winner: Chosen, published: Published, others: Sequence[tuple[Chosen, Published]] = ()
    ) -> None:
        """Make the winner a version, and end pack and job with it.

        The others become versions too, and none of them champion by rule: the winner is what the job stands for.
        LeaseLost where another has claimed the pack or the job was cancelled.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            owner = pack.lease_owner
            version = self._version(session, winner, published)
            opening = _opening(session, job)
            if opening is not None:
                opening.version_id = version.id
            challenge(session, version)
            for chosen, made in others:
                self._version(session, chosen, made)
            account(session, job)
            end_pack(session, pack)
            session.flush()
            account(session, job)
            settle(session, job, owner)

    def _version(self, session: Session, chosen: Chosen, published: Published) -> ModelVersion:
        job, trial = chosen.job, chosen.trial
        onnx = _file(session, chosen, "onnx", (published.onnx_path, published.onnx))
        session.add(onnx)
        if published.answers is not None:
            session.add(_file(session, chosen, ANSWERS, published.answers))
        session.flush()
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
            onnx_id=cast("int", onnx.id),
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


def _file(session: Session, chosen: Chosen, kind: str, stored: tuple[str, Saved]) -> Artifact:
    path, saved = stored
    at, number = clock(session), chosen.trial.number
    return Artifact(
        job_id=chosen.job.id, trial=number, kind=kind, path=path, sha256=saved.sha256, size=saved.size, created_at=at
    )


def _chosen(session: Session, job: Job, number: int) -> Chosen:
    """A trial of a job that has a checkpoint."""
    trial = session.scalars(select(Trial).where(col(Trial.job_id) == job.id, col(Trial.number) == number)).one()
    return Chosen(job, trial, session.scalars(_checkpoint_of(job, number)).one())


def _checkpoint_of(job: Job, number: int) -> Select[Artifact]:
    of_trial = (col(Artifact.job_id) == job.id, col(Artifact.trial) == number, col(Artifact.kind) == "checkpoint")
    return select(Artifact).where(*of_trial)


def _opening(session: Session, job: Job) -> Opening | None:
    return session.scalar(select(Opening).where(col(Opening.job_id) == job.id, col(Opening.run) == job.run))


def _objective(spec: dict[str, Any]) -> str:
    """What versions are compared by; a loss is only comparable with the same kind of loss."""
    return f"{spec['objective']}:{spec['loss']}" if spec["objective"] == "val_loss" else str(spec["objective"])
