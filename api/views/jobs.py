"""The public form of a job: its row, its progress and its best trial."""

import re
from typing import Annotated, Any, cast

from fastapi import Path, Response
from pydantic import AfterValidator
from sqlalchemy import func, select
from sqlmodel import Session, col

from api.views.schemas import Best, JobDetail, VersionRef
from worker.database.clock import to_datetime
from worker.database.engine import Database
from worker.database.tables import Event, Job, ModelVersion, Trial
from worker.errors import Fact, NotFound
from worker.ledger.transitions import active_seconds


def _checked_id(job_id: str) -> str:
    # Postgres rejects some texts, such as one with a NUL, before it compares them.
    if not re.fullmatch("[0-9a-f]{1,64}", job_id):
        raise NotFound("there is no such job", Fact.NO_JOB)
    return job_id


JobId = Annotated[str, Path(description="a job's id, from the answer to POST"), AfterValidator(_checked_id)]
TrialNumber = Annotated[int, Path(ge=0, lt=2**31, description="the trial's number")]

COPIED = {"id", "kind", "state", "stop_reason", "error", "model", "dataset"} | {"trial_limit", "seconds_limit"}
COPIED |= {"run", "lanes", "rules"}  # columns of a job that an answer copies


def accepted(job: Job, database: Database, response: Response) -> JobDetail:
    """Return the answer to a submitted job, and set its headers."""
    response.headers["Location"] = f"/jobs/{job.id}"
    response.headers["Retry-After"] = "1"
    with database.reading() as session:
        return detail(session, job)


def job_of(session: Session, job_id: str) -> Job:
    """Return the job with this id.

    Raises:
        NotFound: if there is no such job.

    """
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound("there is no such job", Fact.NO_JOB)
    return job


def detail(session: Session, job: Job) -> JobDetail:
    """Return a job with its specification, its result and its history."""
    events = session.scalars(
        select(Event).where(col(Event.job_id) == job.id, col(Event.trial).is_(None)).order_by(col(Event.sequence))
    )
    found = {"spec": job.spec, "result": job.result}
    return JobDetail(**summary(session, job), **found, history=[JobDetail.transition(e) for e in events])


def summary(session: Session, job: Job) -> dict[str, Any]:
    """Return the fields that the list of jobs and a job's detail share."""
    counts = session.execute(
        select(col(Trial.state), func.count()).where(col(Trial.job_id) == job.id).group_by(col(Trial.state))
    ).all()
    published = session.scalar(
        select(col(ModelVersion.version))
        .where(col(ModelVersion.job_id) == job.id, col(ModelVersion.test_accuracy).is_not(None))
        .order_by(col(ModelVersion.run).desc())
    )
    best = job.best_trial is not None and job.best_value is not None
    return {
        **job.model_dump(include=COPIED),
        "objective": job.spec.get("objective"),
        "trials": dict(sorted((state, count) for state, count in counts)),
        "active_seconds": round(active_seconds(session, job), 3),
        "best": Best(trial=cast("int", job.best_trial), value=cast("float", job.best_value)) if best else None,
        "version": VersionRef(model=job.model, version=published) if published is not None else None,
        **{name: to_datetime(getattr(job, name)) for name in ("created_at", "started_at", "finished_at")},
    }
