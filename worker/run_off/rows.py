"""Run-offs as rows: the trainings of a pack, their results, and the decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import select
from sqlmodel import Session, col

from ml.records import RungResult, TrialState
from ml.statistics.run_off_result import Verdict
from worker.artifacts.new_files import Stored
from worker.database.clock import clock
from worker.database.engine import Database, note_unneeded
from worker.database.tables import Artifact, Job, Rerun, RunOff, Trial
from worker.ledger.files import add_file
from worker.ledger.leases import Claim, fence
from worker.ledger.transitions import note_job


@dataclass(frozen=True)
class Repeat:
    """One training of a run-off, and the trial whose hyper-parameters it repeats."""

    rerun: Rerun
    trial: Trial
    predictions: Artifact | None  # predicted labels of its validation images; None if it has none

    @property
    def lost(self) -> str | None:
        """Return why this training does not count for the decision; None if it does."""
        return None if self.predictions else f"{self.rerun.state or 'not trained'}: {self.rerun.reason or 'no reason'}"


@dataclass(frozen=True)
class EndedRerun:
    """The end of a training in a run-off, and the file of the labels that it predicts."""

    trial: int  # number
    state: TrialState
    reason: str
    best: RungResult | None
    stored: Stored | None


class RunOffRows:
    """The reads and writes of run-offs, for the holder of a pack's lease."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def work(self, claim: Claim) -> list[Repeat]:
        """Return the trainings of the claimed pack, by number of the trial.

        Raises:
            LeaseLost: if another worker has claimed it.
        """
        with self.database.writing() as session:
            fence(session, claim)
            return _repeats(session, col(Rerun.pack_id) == claim.pack_id)

    def record(self, claim: Claim, reached: Sequence[tuple[int, RungResult]], ended: Sequence[EndedRerun]) -> None:
        """Write down how far trainings of the claimed pack have got and how they ended, all of it or nothing.

        A result that is on record already stays as it is.

        Raises:
            LeaseLost: if another worker has claimed the pack.
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
            note_unneeded(session, (one.stored[0] for one in ended if one.stored and one.trial not in going))

    def all(self, claim: Claim) -> tuple[Job, list[Repeat]]:
        """Return the claimed pack's job and all trainings of its run-off; none if it is decided already."""
        with self.database.writing() as session:
            job, _ = fence(session, claim)
            if session.get(RunOff, (job.id, job.run)) is not None:
                return job, []
            return job, _repeats(session, (col(Rerun.job_id) == job.id) & (col(Rerun.run) == job.run))

    def decide(self, claim: Claim, verdict: Verdict) -> None:
        """Write the decision down; without a winner, the best trial of the search wins."""
        with self.database.writing() as session:
            job, _ = fence(session, claim)
            winner = cast("int", job.best_trial if verdict.winner is None else verdict.winner)
            found = verdict.model_dump(mode="json")
            session.add(RunOff(job_id=job.id, run=job.run, winner=winner, verdict=found, at=clock(session)))
            tied = sum(one.tied for one in verdict.contenders)
            note_job(session, job, f"trial {winner} wins the run-off; {tied} trials are tied", None)


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
    if ended.stored is not None:
        rerun.predictions_id = add_file(session, rerun.job_id, "rerun", ended.stored, trial=rerun.trial)
    note_job(session, job, f"run-off: trial {rerun.trial} on seed {rerun.seed}: {ended.state}, {reached}", None)
