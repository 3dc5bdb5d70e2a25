"""The run-off of a job: its best trials trained again on fresh seeds, and the tests that chose the winner."""

from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.deps import DatabaseDep
from api.views.jobs import JobId
from ml.statistics.run_off_result import Verdict
from worker.database.tables import Job, Rerun, RunOff
from worker.errors import Fact, NotFound
from worker.ledger.run_off_start import last_reruns

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])


class RerunPublic(BaseModel):
    """One training of a trial's hyper-parameters in the run-off. It is not a trial and uses no budget."""

    trial: int = Field(description="the trial's number")
    seed: int = Field(description="index of the fresh seed, from 0")
    cut_seed: int = Field(description="seed of the split into training and validation images")
    state: str | None = Field(description="a trial's final state; null until the training has ended")
    reason: str | None = Field(description="why it ended")
    epochs_run: float = Field(description="epochs measured so far")
    best_epoch: float | None
    val_loss: float | None
    val_accuracy: float | None
    seconds: float = Field(description="duration of training and evaluation")

    @classmethod
    def of(cls, row: Rerun) -> Self:
        """Return the public form of a row."""
        return cls(cut_seed=row.split_seed, **row.model_dump(include=set(cls.model_fields)))


class RunOffPublic(BaseModel):
    """The last run-off that a job started."""

    run: int | None = Field(description="run of the job; null before the run-off has started")
    top: int = Field(description="maximum number of best trials to compare")
    seeds: int = Field(description="number of fresh seeds that each trial is trained on")
    winner: int | None = Field(description="number of the trial that is published; null until the run-off is decided")
    verdict: Verdict | None
    reruns: list[RerunPublic]


@router.get("/runoff")
def run_off(job_id: JobId, database: DatabaseDep) -> RunOffPublic:
    """Return a job's run-off: results on fresh seeds and splits, tests of the differences, and the winner."""
    with database.reading() as session:
        job = session.get(Job, job_id)
        options = job.spec.get("run_off") if job else None
        if job is None or options is None:
            raise NotFound('there is no such job, or its specification has no "run_off"', Fact.NO_JOB)
        reruns = last_reruns(session, job)
        run = reruns[0].run if reruns else None
        decided = session.get(RunOff, (job_id, run)) if reruns else None
        return RunOffPublic(
            run=run,
            **options,
            winner=decided.winner if decided else None,
            verdict=Verdict.model_validate(decided.verdict) if decided else None,
            reruns=[RerunPublic.of(row) for row in reruns],
        )
