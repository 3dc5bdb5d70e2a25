"""The run-off of a job: its best trials trained again, and what decided between them."""

from typing import Self

from fastapi import APIRouter
from pydantic import BaseModel, Field

from api.deps import DatabaseDep
from api.views.jobs import JobId
from ml.statistics.run_off_result import Verdict
from worker.database.tables import Job, Rerun, RunOff
from worker.errors import NotFound
from worker.ledger.run_off_start import last_reruns

router = APIRouter(prefix="/jobs/{job_id}", tags=["jobs"])


class RerunPublic(BaseModel):
    """One training of a trial's hyper-parameters. It is no trial, and no budget counts it."""

    trial: int = Field(description="the trial's number")
    seed: int = Field(description="which of the fresh seeds, from 0")
    cut_seed: int = Field(description="what divides the images into train and validation")
    state: str | None = Field(description="as of a trial; null until it has ended")
    reason: str | None = Field(description="why it ended")
    epochs_run: float = Field(description="measured so far")
    best_epoch: float | None
    val_loss: float | None
    val_accuracy: float | None
    seconds: float = Field(description="training and evaluation")

    @classmethod
    def of(cls, row: Rerun) -> Self:
        """The answer for a row."""
        return cls(cut_seed=row.split_seed, **row.model_dump(include=set(cls.model_fields)))


class RunOffPublic(BaseModel):
    """The last run-off that a job began."""

    run: int | None = Field(description="the run of the job; null before it has begun")
    top: int = Field(description="how many of the best trials it decides between, at most")
    seeds: int = Field(description="how often each is trained again")
    winner: int | None = Field(description="the trial that is published; null until that is decided")
    verdict: Verdict | None
    reruns: list[RerunPublic]


@router.get("/runoff")
def run_off(job_id: JobId, database: DatabaseDep) -> RunOffPublic:
    """How the best trials did on fresh seeds and cuts, what tests say of their differences, and which one won."""
    with database.reading() as session:
        job = session.get(Job, job_id)
        asked = job.spec.get("run_off") if job else None
        if job is None or asked is None:
            raise NotFound('there is no such job, or it asks for no "run_off"; GET /jobs lists them')
        reruns = last_reruns(session, job)
        run = reruns[0].run if reruns else None
        decided = session.get(RunOff, (job_id, run)) if reruns else None
        return RunOffPublic(
            run=run,
            **asked,
            winner=decided.winner if decided else None,
            verdict=Verdict.model_validate(decided.verdict) if decided else None,
            reruns=[RerunPublic.of(row) for row in reruns],
        )
