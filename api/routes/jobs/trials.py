"""The trials of a job: list, show, enqueue, cancel and retry them."""

import csv
import io
from collections.abc import Iterator
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from sqlmodel import col

from api.deps import ControlsDep, DatabaseDep, OnceDep
from api.http.errors import BadInput
from api.http.paging import Cursor, Limit, RowOrder, link_next, page_of
from api.views.jobs import JobId, TrialNumber, job_of
from api.views.schemas import Enqueued, MeasurementPublic, TrialDetail, TrialPage, TrialPublic
from ml.networks import networks
from ml.parameters.params import describe
from ml.records import TrialState
from worker.database.engine import Database
from worker.database.tables import Job, Measurement, Pack, Trial
from worker.errors import Fact, NotFound
from worker.ledger.job_spec import spec_of
from worker.ledger.transfer import fresh_of
from worker.supervision.notify import wake_worker

router = APIRouter(prefix="/jobs", tags=["jobs"])

CSV_COLUMNS = (
    "epochs_run",
    "best_epoch",
    "train_loss",
    "val_loss",
    "val_accuracy",
    "value",
    "seconds",
    "flops",
    "weights",
)
CSV_OF_JOB = ("rules",)  # facts of the job, the same in every row; after all others, so that no column moves
SORTABLE = ("number", "state", "created_at", "finished_at", *CSV_COLUMNS)
CSV_PAGE = 500  # rows read at a time; no database session is open while they are sent


@router.get("/{job_id}/trials", responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}})
def list_trials(
    job_id: JobId,
    request: Request,
    response: Response,
    database: DatabaseDep,
    state: Annotated[TrialState | None, Query(description="only trials in this state")] = None,
    order_by: Annotated[
        str, Query(max_length=100, description="a column or hyper-parameter; a leading - puts the largest first")
    ] = "number",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> TrialPage:
    """List a job's trials page by page; with `Accept: text/csv` return all of them as CSV."""
    with database.reading() as session:
        job = job_of(session, job_id)
        order = _order(job, order_by)
        if _wants_csv(request):
            # The declared type describes the JSON answer. A ready response is sent as it is.
            return cast("TrialPage", _csv_response(database, job, state, order))
        page = page_of(session, _trials(job, state), order, limit, cursor)
    link_next(request, response, page)
    return TrialPage(items=[TrialPublic.of(trial) for trial in page.rows], next_cursor=page.next_cursor)


@router.get("/{job_id}/trials/{number}")
def get_trial(job_id: JobId, number: TrialNumber, database: DatabaseDep) -> TrialDetail:
    """Return a trial with all its measurements."""
    with database.reading() as session:
        job = job_of(session, job_id)
        trial = session.scalar(_trials(job, None).where(col(Trial.number) == number))
        if trial is None:
            raise NotFound("the job has no such trial", Fact.NO_TRIAL, job_id=job_id)
        measurements = session.scalars(
            select(Measurement).where(col(Measurement.trial_id) == trial.id).order_by(col(Measurement.step))
        ).all()
        seeds = {"init_seed": trial.init_seed, "start_step": trial.start_step}
        place = {"pack": trial.pack_id, "lane": trial.lane}
        return TrialDetail(
            **TrialPublic.of(trial).model_dump(),
            **seeds,
            **place,
            fresh=fresh_of(session, spec_of(session, job), trial.params or {}) if trial.params else None,
            stream_seed=session.get_one(Pack, trial.pack_id).stream_seed,
            measurements=[MeasurementPublic.of(m) for m in measurements],
        )


@router.post("/{job_id}/trials", status_code=202)
def enqueue(
    job_id: JobId, configuration: Enqueued, controls: ControlsDep, once: OnceDep, response: Response
) -> TrialPublic:
    """Enqueue a configuration of your choice; it counts as one trial of the budget."""
    trial = controls.enqueue(job_id, configuration.params, once)
    wake_worker()
    response.headers["Location"] = f"/jobs/{job_id}/trials/{trial.number}"
    return TrialPublic.of(trial)


@router.post("/{job_id}/trials/{number}/cancel", status_code=202)
def cancel_trial(job_id: JobId, number: TrialNumber, controls: ControlsDep) -> TrialPublic:
    """Cancel a trial; the job goes on. A trial that has ended does not change."""
    return TrialPublic.of(controls.cancel_trial(job_id, number))


@router.post("/{job_id}/trials/{number}/retry", status_code=202)
def retry(job_id: JobId, number: TrialNumber, controls: ControlsDep) -> TrialPublic:
    """Run a failed trial again. This restarts a job that has ended."""
    trial = controls.retry(job_id, number)
    wake_worker()
    return TrialPublic.of(trial)


def _trials(job: Job, state: TrialState | None) -> Any:
    statement = select(Trial).where(col(Trial.job_id) == job.id)
    return statement if state is None else statement.where(col(Trial.state) == state)


def _order(job: Job, order_by: str) -> RowOrder:
    """Return the order that `order_by` names.

    Raises:
        BadInput: if no column or hyper-parameter has this name.

    """
    name = order_by.removeprefix("-")
    key: Any
    if name in SORTABLE:
        key = col(getattr(Trial, name))
    else:
        params = describe(networks[job.model].params)
        kinds = {n: _kind(p) for n, p in params.items() if _kind(p) is not None}
        if name not in kinds:
            raise BadInput("?order_by", f"unknown column; choose one of: {', '.join([*SORTABLE, *kinds])}")
        value = col(Trial.params)[name]
        key = value.as_string() if kinds[name] == "string" else value.as_float()
    return RowOrder(name, key, col(Trial.number), descending=order_by.startswith("-"))


def _kind(parameter: dict[str, Any]) -> str | None:
    """Return the JSON type that a parameter is ordered by, number or string; None if it has no order."""
    kinds = {parameter.get("type"), *(option.get("type") for option in parameter.get("anyOf", []))}
    if kinds & {"integer", "number"}:
        return "number"
    return "string" if "string" in kinds else None


def _wants_csv(request: Request) -> bool:
    return "text/csv" in request.headers.get("accept", "")


def _csv_response(database: Database, job: Job, state: TrialState | None, order: RowOrder) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{job.id}-trials.csv"'}
    return StreamingResponse(_csv(database, job, state, order), media_type="text/csv; charset=utf-8", headers=headers)


def _csv(database: Database, job: Job, state: TrialState | None, order: RowOrder) -> Iterator[str]:
    """Yield one CSV row per trial: number, state, hyper-parameters, results, duration, and the job's rules."""
    names = list(networks[job.model].params.model_fields)
    yield _csv_row(["number", "state", *names, *CSV_COLUMNS, *CSV_OF_JOB])
    of_job = [getattr(job, name) for name in CSV_OF_JOB]
    cursor: str | None = None
    while True:
        with database.reading() as session:
            page = page_of(session, _trials(job, state), order, CSV_PAGE, cursor)
        for trial in page.rows:
            params = [_csv_value((trial.params or {}).get(name)) for name in names]
            results = [getattr(trial, name) for name in CSV_COLUMNS]
            yield _csv_row([trial.number, trial.state, *params, *results, *of_job])
        cursor = page.next_cursor
        if cursor is None:
            return


def _csv_value(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _csv_row(values: list[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()
