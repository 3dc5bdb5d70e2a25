"""Run-offs as rows: what a pack trains again, what came of it, and what was decided."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import select
from sqlmodel import Session, col

from ml.artifacts import Saved
from ml.records import RungResult, TrialState
from ml.statistics.run_off_result import Verdict
from worker.database.engine import Database
from worker.database.tables import Artifact, Job, Rerun, RunOff, Trial
from worker.ledger.leases import Claim, fence
from worker.ledger.transitions import clock, note_job

Stored = tuple[str, Saved]  # a file's key in the store, and what was written there


@dataclass(frozen=True)
class Repeat:
    """One training of a trial's hyper-parameters, and the trial."""

    rerun: Rerun
    trial: Trial
    predictions: Artifact | None  # labels of its validation images; None until it has them

    @property
    def lost(self) -> str | None:
        """Why it has no say, None where it has."""
        return None if self.predictions else f"{self.rerun.state or 'not trained'}: {self.rerun.reason or 'no reason'}"


@dataclass(frozen=True)
class EndedRerun:
    """How a trial's training in a run-off ended, and the file of what it predicts."""

    trial: int  # number
    state: TrialState
    reason: str
    best: RungResult | None
    stored: Stored | None


class RunOffRows:
    """What run-offs read and write, for whoever holds the lease."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def work(self, claim: Claim) -> list[Repeat]:
        """What the claimed pack trains, by number of the trial; LeaseLost where another has claimed it."""
        with self.database.writing() as session:
            fence(session, claim)
            return _repeats(session, col(Rerun.pack_id) == claim.pack_id)

    def record(self, claim: Claim, reached: Sequence[tuple[int, RungResult]], ended: Sequence[EndedRerun]) -> list[str]:
        """Write down what trials of the claimed pack reached and how they ended, all of it or nothing.

        What is on record already stands. Returns the paths of files that no row needs. LeaseLost where another has
        claimed the pack.
        """
        with self.database.writing() as session:
            job, _ = fence(session, claim)
            of_pack = select(Rerun).where(col(Rerun.pack_id) == claim.pack_id)
            going = {rerun.trial: rerun for rerun in session.scalars(of_pack) if rerun.state is None}
            for number, measured in reached:
                if number in going and measured.epoch > going[number].epochs_run:
                    going[number].epochs_run = measured.epoch
                    going[number].seconds += measured.seconds
            for one in ended:
                if one.trial in going:
                    _end(session, job, going[one.trial], one)
            return [one.stored[0] for one in ended if one.stored and one.trial not in going]

    def all(self, claim: Claim) -> tuple[Job, list[Repeat]]:
        """Everything that the run-off of the claimed pack's run has trained, unless it is decided."""
        with self.database.writing() as session:
            job, _ = fence(session, claim)
            if session.get(RunOff, (job.id, job.run)) is not None:
                return job, []
            return job, _repeats(session, (col(Rerun.job_id) == job.id) & (col(Rerun.run) == job.run))

    def decide(self, claim: Claim, verdict: Verdict) -> None:
        """Write down who wins; the best of the search where nobody does."""
        with self.database.writing() as session:
            job, _ = fence(session, claim)
            winner = cast("int", job.best_trial if verdict.winner is None else verdict.winner)
            found = verdict.model_dump(mode="json")
            session.add(RunOff(job_id=job.id, run=job.run, winner=winner, verdict=found, at=clock(session)))
            tied = sum(one.tied for one in verdict.contenders)
            note_job(session, job, f"the run-off is won by trial {winner}, {tied} tied", None)


def _repeats(session: Session, which: Any) -> list[Repeat]:
    rows = session.execute(
        select(Rerun, Trial, Artifact)
        .join(Trial, (col(Trial.job_id) == col(Rerun.job_id)) & (col(Trial.number) == col(Rerun.trial)))
        .outerjoin(Artifact, col(Artifact.id) == col(Rerun.predictions_id))
        .where(which)
        .order_by(col(Rerun.trial), col(Rerun.seed))
    ).all()
    return [Repeat(*row) for row in rows]


def _end(session: Session, job: Job, rerun: Rerun, ended: EndedRerun) -> None:
    rerun.state, rerun.reason = ended.state, ended.reason
    reached = ended.reason
    if (best := ended.best) is not None:
        rerun.best_epoch, rerun.val_loss, rerun.val_accuracy = best.epoch, best.val_loss, best.val_accuracy
        reached = f"validation accuracy {best.val_accuracy:.4f}" if best.val_accuracy is not None else reached
    rerun.predictions_id = None if ended.stored is None else _file(session, rerun, ended.stored)
    note_job(session, job, f"run-off: trial {rerun.trial} on seed {rerun.seed}: {ended.state}, {reached}", None)


def _file(session: Session, rerun: Rerun, stored: Stored) -> int:
    path, saved = stored
    artifact = Artifact(
        job_id=rerun.job_id,
        trial=rerun.trial,
        kind="rerun",
        path=path,
        sha256=saved.sha256,
        size=saved.size,
        created_at=clock(session),
    )
    session.add(artifact)
    session.flush()
    return cast("int", artifact.id)
