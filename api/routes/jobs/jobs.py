"""Jobs: submit, list, show, cancel, pause, resume and extend them."""

from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from sqlalchemy import select
from sqlmodel import col

from api.deps import ControlsDep, DatabaseDep, LedgerDep, OnceDep, TrainSpecDep, TuneSpecDep
from api.http.paging import Cursor, Limit, RowOrder, link_next, page_of
from api.views.estimates import estimate
from api.views.jobs import JobId, accepted, detail, job_of, summary
from api.views.schemas import (
    JobChange,
    JobDetail,
    JobPage,
    JobPublic,
    Validated,
)
from ml.specs import TrainSpec, TuneSpec
from worker.database.engine import Database
from worker.database.tables import Job, JobState
from worker.ledger.requests import Controls
from worker.ledger.transfer import resolved
from worker.supervision.notify import wake_worker

router = APIRouter(prefix="/jobs", tags=["jobs"])


ValidateOnly = Annotated[
    bool, Query(description="submit nothing; return the complete specification and an estimate of the duration")
]
VALIDATED: dict[int | str, dict[str, Any]] = {200: {"model": Validated, "description": "With `validate_only`"}}


@router.post("/train", status_code=202, responses=VALIDATED)
def train(
    spec: TrainSpecDep, ledger: LedgerDep, once: OnceDep, response: Response, validate_only: ValidateOnly = False
) -> JobDetail:
    """Train one network with fixed hyper-parameters."""
    if validate_only:
        return _validated(spec, ledger.database)
    job = ledger.accept(spec, once)
    wake_worker()
    return accepted(job, ledger.database, response)


@router.post("/tune", status_code=202, responses=VALIDATED)
def tune(
    spec: TuneSpecDep, ledger: LedgerDep, once: OnceDep, response: Response, validate_only: ValidateOnly = False
) -> JobDetail:
    """Search the hyper-parameters of one network."""
    if validate_only:
        return _validated(spec, ledger.database)
    job = ledger.accept(spec, once)
    wake_worker()
    return accepted(job, ledger.database, response)


@router.get("")
def list_jobs(
    request: Request,
    response: Response,
    database: DatabaseDep,
    state: Annotated[JobState | None, Query(description="only jobs in this state")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JobPage:
    """List jobs, newest first."""
    order = RowOrder("created_at", col(Job.created_at), col(Job.id), descending=True)
    statement = select(Job) if state is None else select(Job).where(col(Job.state) == state)
    with database.reading() as session:
        page = page_of(session, statement, order, limit, cursor)
        link_next(request, response, page)
        return JobPage(items=[JobPublic(**summary(session, job)) for job in page.rows], next_cursor=page.next_cursor)


@router.get("/{job_id}")
def get_job(job_id: JobId, database: DatabaseDep) -> JobDetail:
    """Return a job: its state, progress, best trial, specification and history."""
    with database.reading() as session:
        return detail(session, job_of(session, job_id))


@router.post("/{job_id}/cancel", status_code=202)
def cancel(job_id: JobId, controls: ControlsDep) -> JobDetail:
    """Cancel a job; its running trials stop within seconds. A job that has ended does not change."""
    return _answer(controls, controls.cancel(job_id))


@router.post("/{job_id}/pause", status_code=202)
def pause(job_id: JobId, controls: ControlsDep) -> JobDetail:
    """Pause a job until it is resumed; its trials then continue from their checkpoints."""
    return _answer(controls, controls.pause(job_id))


@router.post("/{job_id}/resume", status_code=202)
def resume(job_id: JobId, controls: ControlsDep) -> JobDetail:
    """Resume a paused job."""
    job = controls.resume(job_id)
    wake_worker()
    return _answer(controls, job)


@router.patch("/{job_id}")
def extend(job_id: JobId, change: JobChange, controls: ControlsDep) -> JobDetail:
    """Change a job's limits. Raising a limit restarts a completed job."""
    job = controls.extend(job_id, change.budget.model_dump(exclude_unset=True))
    wake_worker()
    return _answer(controls, job)


def _validated(spec: TrainSpec | TuneSpec, database: Database) -> JobDetail:
    with database.reading() as session:
        found = estimate(session, resolved(session, spec))
    answer = Validated(
        spec=spec.model_dump(mode="json"),
        trial_limit=spec.as_tune().trial_limit,
        seconds=found.seconds,
        measured_trials=found.trials,
    )
    # The declared type describes a submitted job. A ready response is sent as it is.
    return cast("JobDetail", JSONResponse(answer.model_dump()))


def _answer(controls: Controls, job: Job) -> JobDetail:
    with controls.database.reading() as session:
        return detail(session, job)
