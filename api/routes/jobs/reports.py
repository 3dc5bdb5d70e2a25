"""Reports of a job or a group: one self-contained HTML file."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from api.deps import ChildrenDep, DatabaseDep
from api.report.wording import Language
from api.routes.jobs.experiments import GroupId
from api.subprocesses.children import Children
from api.views.jobs import JobId
from worker.database.engine import Database
from worker.database.tables import Job
from worker.errors import Conflict, Fact, NotFound
from worker.ledger.groups import find_group

router = APIRouter(prefix="/jobs")

# The report is self-contained, so the browser may load nothing else.
HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:"}
HTML: dict[int | str, dict[str, Any]] = {
    200: {"description": "The report", "content": {"text/html": {"schema": {"type": "string"}}}}
}


LanguageQuery = Annotated[Language, Query(description="language of the report: en or fr")]


@router.get("/experiments/{group_id}/report", response_class=Response, responses=HTML, tags=["experiments"])
def group_report(
    group_id: GroupId, database: DatabaseDep, children: ChildrenDep, lang: LanguageQuery = "en"
) -> Response:
    """Return a group's report as one HTML file: all experiments side by side, then each job's own report."""
    with database.reading() as session:
        find_group(session, group_id)
    return _report(children, "group", group_id, lang)


@router.get("/{job_id}/report", response_class=Response, responses=HTML, tags=["jobs"])
def report(job_id: JobId, database: DatabaseDep, children: ChildrenDep, lang: LanguageQuery = "en") -> Response:
    """Return a job's report as one HTML file: what it did and what it found.

    The report depends on stored rows and files only. Its bytes stay the same until the job changes.
    """
    _check_has_trials(database, job_id)
    return _report(children, "job", job_id, lang)


def _report(children: Children, kind: str, id_: str, lang: Language) -> Response:
    page = children.run("api.report", kind, id_, lang)
    return Response(page, media_type="text/html; charset=utf-8", headers=HEADERS)


def _check_has_trials(database: Database, job_id: str) -> None:
    """Check that a job exists and has trials.

    Raises:
        NotFound: if there is no such job.
        Conflict: if the job is a predict job, which has no trials.

    """
    with database.reading() as session:
        job = session.get(Job, job_id)
    if job is None:
        raise NotFound("there is no such job", Fact.NO_JOB)
    if job.predicts:
        raise Conflict(f"a predict job has no trials to report on; GET /jobs/{job_id}/predictions returns its results")
