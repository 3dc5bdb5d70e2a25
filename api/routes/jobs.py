"""Jobs: post them, list them, watch their trials."""

import csv
import io
import re
from collections.abc import Iterator
from typing import Annotated, Any, cast

from fastapi import APIRouter, BackgroundTasks, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import AfterValidator
from sqlalchemy import func, select
from sqlmodel import Session, col

from api.deps import ControlsDep, DatabaseDep, LedgerDep, OnceDep, StoreDep
from api.errors import BadInput
from api.estimates import estimate
from api.paging import Cursor, Limit, Order, link_next, page_of
from api.schemas import (
    Best,
    Enqueued,
    JobChange,
    JobDetail,
    JobPage,
    JobPublic,
    MeasurementPublic,
    TrialDetail,
    TrialPage,
    TrialPublic,
    Validated,
    VersionRef,
)
from ml.networks import networks
from ml.parameters.params import describe
from ml.records import TrialState
from ml.specs import TrainSpec, TuneSpec
from worker.artifacts.store import drop_files
from worker.database.clock import to_datetime
from worker.database.engine import Database
from worker.database.tables import Event, Job, JobState, Measurement, ModelVersion, Pack, Trial
from worker.errors import NotFound
from worker.ledger.job_spec import spec_of
from worker.ledger.requests import Controls
from worker.ledger.transfer import fresh_of, settled
from worker.ledger.transitions import active_seconds
from worker.supervision.notify import ring, submit

router = APIRouter(prefix="/jobs", tags=["jobs"])


def _an_id(job_id: str) -> str:
    # Postgres would stumble over some texts that can be no id.
    if not re.fullmatch("[0-9a-f]{1,64}", job_id):
        raise NotFound("there is no such job; GET /jobs lists them")
    return job_id


JobId = Annotated[str, Path(description="a job's id, as POST answered it"), AfterValidator(_an_id)]
TrialNumber = Annotated[int, Path(ge=0, lt=2**31)]

ValidateOnly = Annotated[bool, Query(description="submit nothing: say what it would be, and how long it may take")]
VALIDATED: dict[int | str, dict[str, Any]] = {200: {"model": Validated, "description": "with `validate_only`"}}

PLAIN = {"id", "kind", "state", "stop_reason", "error", "model", "dataset"} | {"trial_limit", "seconds_limit"}
PLAIN |= {"run", "lanes"}  # what a job's row says as it is
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
SORTABLE = ("number", "state", "created_at", "finished_at", *CSV_COLUMNS)
CSV_PAGE = 500  # rows read at a time; no session is open while they are sent


@router.post("/train", status_code=202, responses=VALIDATED)
def train(
    spec: TrainSpec, ledger: LedgerDep, once: OnceDep, response: Response, validate_only: ValidateOnly = False
) -> JobDetail:
    """Train one network with fixed hyper-parameters."""
    if validate_only:
        return _validated(spec, ledger.database)
    return accepted(submit(ledger, spec, once), ledger.database, response)


@router.post("/tune", status_code=202, responses=VALIDATED)
def tune(
    spec: TuneSpec, ledger: LedgerDep, once: OnceDep, response: Response, validate_only: ValidateOnly = False
) -> JobDetail:
    """Search the hyper-parameters of one network."""
    if validate_only:
        return _validated(spec, ledger.database)
    return accepted(submit(ledger, spec, once), ledger.database, response)


@router.get("")
def list_jobs(
    request: Request,
    response: Response,
    database: DatabaseDep,
    state: JobState | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> JobPage:
    """List jobs, the newest first."""
    order = Order("created_at", col(Job.created_at), col(Job.id), descending=True)
    statement = select(Job) if state is None else select(Job).where(col(Job.state) == state)
    with database.reading() as session:
        page = page_of(session, statement, order, limit, cursor)
        link_next(request, response, page)
        return JobPage(items=[JobPublic(**summary(session, job)) for job in page.rows], next_cursor=page.next_cursor)


@router.get("/{job_id}")
def get_job(job_id: JobId, database: DatabaseDep) -> JobDetail:
    """One job: its state, progress, best trial, specification and history."""
    with database.reading() as session:
        return _detail(session, _job(session, job_id))


@router.post("/{job_id}/cancel", status_code=202)
def cancel(job_id: JobId, controls: ControlsDep, store: StoreDep, after: BackgroundTasks) -> JobDetail:
    """End a job; its running trials are cut within seconds. A job that has ended stays as it is."""
    job, unneeded = controls.cancel(job_id)
    after.add_task(drop_files, store, unneeded)
    return _answer(controls, job)


@router.post("/{job_id}/pause", status_code=202)
def pause(job_id: JobId, controls: ControlsDep) -> JobDetail:
    """Stop work on a job until it is resumed; its trials go on later from where they were."""
    return _answer(controls, controls.pause(job_id))


@router.post("/{job_id}/resume", status_code=202)
def resume(job_id: JobId, controls: ControlsDep) -> JobDetail:
    """Let a paused job go on."""
    job = controls.resume(job_id)
    ring()
    return _answer(controls, job)


@router.patch("/{job_id}")
def extend(job_id: JobId, change: JobChange, controls: ControlsDep) -> JobDetail:
    """Change a job's budget; a completed job whose new budget allows for more goes on."""
    job = controls.extend(job_id, change.budget.model_dump(exclude_unset=True))
    ring()
    return _answer(controls, job)


@router.get("/{job_id}/trials", responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}})
def list_trials(
    job_id: JobId,
    request: Request,
    response: Response,
    database: DatabaseDep,
    state: Annotated[TrialState | None, Query(description="only trials in this state")] = None,
    order_by: Annotated[
        str, Query(max_length=100, description="a column or hyper-parameter; with - before it the largest first")
    ] = "number",
    limit: Limit = 100,
    cursor: Cursor = None,
) -> TrialPage:
    """A job's trials by page; with `Accept: text/csv` all of them as CSV."""
    with database.reading() as session:
        job = _job(session, job_id)
        order = _order(job, order_by)
        if _wants_csv(request):
            # The declared type is the JSON answer; this one goes out as it is.
            return cast("TrialPage", _csv_response(database, job, state, order))
        page = page_of(session, _trials(job, state), order, limit, cursor)
    link_next(request, response, page)
    return TrialPage(items=[TrialPublic.of(trial) for trial in page.rows], next_cursor=page.next_cursor)


@router.get("/{job_id}/trials/{number}")
def get_trial(job_id: JobId, number: TrialNumber, database: DatabaseDep) -> TrialDetail:
    """One trial with every epoch."""
    with database.reading() as session:
        job = _job(session, job_id)
        trial = session.scalar(_trials(job, None).where(col(Trial.number) == number))
        if trial is None:
            raise NotFound(f"the job has no such trial; GET /jobs/{job_id}/trials lists them")
        measurements = session.scalars(
            select(Measurement).where(col(Measurement.trial_id) == trial.id).order_by(col(Measurement.step))
        ).all()
        seeds = {"init_seed": trial.init_seed, "start_step": trial.start_step}
        place = {"pack": trial.pack_id, "lane": trial.lane}
        return TrialDetail(
            **TrialPublic.of(trial).model_dump(),
            **seeds,
            **place,
            fresh=fresh_of(session, spec_of(job), trial.params or {}) if trial.params else None,
            stream_seed=session.get_one(Pack, trial.pack_id).stream_seed,
            measurements=[MeasurementPublic.of(m) for m in measurements],
        )


@router.post("/{job_id}/trials", status_code=202)
def enqueue(job_id: JobId, wanted: Enqueued, controls: ControlsDep, once: OnceDep, response: Response) -> TrialPublic:
    """Try a configuration of your own beside those that the sampler draws; it counts as one trial of the budget."""
    trial = controls.enqueue(job_id, wanted.params, once)
    ring()
    response.headers["Location"] = f"/jobs/{job_id}/trials/{trial.number}"
    return TrialPublic.of(trial)


@router.post("/{job_id}/trials/{number}/cancel", status_code=202)
def cancel_trial(
    job_id: JobId, number: TrialNumber, controls: ControlsDep, store: StoreDep, after: BackgroundTasks
) -> TrialPublic:
    """End one trial; the job goes on. A trial that has ended stays as it is."""
    trial, unneeded = controls.cancel_trial(job_id, number)
    after.add_task(drop_files, store, unneeded)
    return TrialPublic.of(trial)


@router.post("/{job_id}/trials/{number}/retry", status_code=202)
def retry(job_id: JobId, number: TrialNumber, controls: ControlsDep) -> TrialPublic:
    """Run a failed trial again; a job that has ended goes on for it."""
    trial = controls.retry(job_id, number)
    ring()
    return TrialPublic.of(trial)


def accepted(job: Job, database: Database, response: Response) -> JobDetail:
    """The answer to the post of a job."""
    response.headers["Location"] = f"/jobs/{job.id}"
    response.headers["Retry-After"] = "1"
    with database.reading() as session:
        return _detail(session, job)


def _validated(spec: TrainSpec | TuneSpec, database: Database) -> JobDetail:
    with database.reading() as session:
        found = estimate(session, settled(session, spec))
    trials = spec.trial_limit if isinstance(spec, TuneSpec) else 1
    answer = Validated(
        spec=spec.model_dump(mode="json"), trial_limit=trials, seconds=found.seconds, measured_trials=found.trials
    )
    # The declared type is the answer to a job that is submitted; this one goes out as it is.
    return cast("JobDetail", JSONResponse(answer.model_dump()))


def _answer(controls: Controls, job: Job) -> JobDetail:
    with controls.database.reading() as session:
        return _detail(session, job)


def _job(session: Session, job_id: str) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound("there is no such job; GET /jobs lists them")
    return job


def _detail(session: Session, job: Job) -> JobDetail:
    events = session.scalars(
        select(Event).where(col(Event.job_id) == job.id, col(Event.trial).is_(None)).order_by(col(Event.sequence))
    )
    found = {"spec": job.spec, "result": job.result}
    return JobDetail(**summary(session, job), **found, history=[JobDetail.transition(e) for e in events])


def summary(session: Session, job: Job) -> dict[str, Any]:
    """What a list and a detail of jobs have in common."""
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
        **job.model_dump(include=PLAIN),
        "objective": job.spec.get("objective"),
        "trials": dict(sorted((state, count) for state, count in counts)),
        "active_seconds": round(active_seconds(session, job), 3),
        "best": Best(trial=cast("int", job.best_trial), value=cast("float", job.best_value)) if best else None,
        "version": VersionRef(model=job.model, version=published) if published is not None else None,
        **{name: to_datetime(getattr(job, name)) for name in ("created_at", "started_at", "finished_at")},
    }


def _trials(job: Job, state: TrialState | None) -> Any:
    statement = select(Trial).where(col(Trial.job_id) == job.id)
    return statement if state is None else statement.where(col(Trial.state) == state)


def _order(job: Job, order_by: str) -> Order:
    """The order that a query names; BadInput where there is no such column."""
    name = order_by.removeprefix("-")
    key: Any
    if name in SORTABLE:
        key = col(getattr(Trial, name))
    else:
        params = describe(networks[job.model].params)
        kinds = {n: _kind(p) for n, p in params.items() if _kind(p) is not None}
        if name not in kinds:
            raise BadInput("?order_by", f"no such column; choose one of: {', '.join([*SORTABLE, *kinds])}")
        value = col(Trial.params)[name]
        key = value.as_string() if kinds[name] == "string" else value.as_float()
    return Order(name, key, col(Trial.number), descending=order_by.startswith("-"))


def _kind(parameter: dict[str, Any]) -> str | None:
    """The JSON type of a parameter that can be ordered: number or string; None where it cannot."""
    kinds = {parameter.get("type"), *(option.get("type") for option in parameter.get("anyOf", []))}
    if kinds & {"integer", "number"}:
        return "number"
    return "string" if "string" in kinds else None


def _wants_csv(request: Request) -> bool:
    return "text/csv" in request.headers.get("accept", "")


def _csv_response(database: Database, job: Job, state: TrialState | None, order: Order) -> Response:
    headers = {"Content-Disposition": f'attachment; filename="{job.id}-trials.csv"'}
    return StreamingResponse(_csv(database, job, state, order), media_type="text/csv; charset=utf-8", headers=headers)


def _csv(database: Database, job: Job, state: TrialState | None, order: Order) -> Iterator[str]:
    """Every trial as a row: number, state, each hyper-parameter, then what it reached and the time it took."""
    params = list(networks[job.model].params.model_fields)
    yield _csv_row(["number", "state", *params, *CSV_COLUMNS])
    cursor: str | None = None
    while True:
        with database.reading() as session:
            page = page_of(session, _trials(job, state), order, CSV_PAGE, cursor)
        for trial in page.rows:
            drawn = [_csv_value((trial.params or {}).get(name)) for name in params]
            yield _csv_row([trial.number, trial.state, *drawn, *(getattr(trial, name) for name in CSV_COLUMNS)])
        cursor = page.next_cursor
        if cursor is None:
            return


def _csv_value(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value


def _csv_row(values: list[Any]) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(values)
    return line.getvalue()
