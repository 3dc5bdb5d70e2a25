"""Analysis, plots and Pareto fronts of a job's trials."""

import base64
import hashlib
import pathlib
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import FileResponse
from pydantic import Field

from api.deps import AnalysesDep, DatabaseDep
from api.http.errors import BadInput
from api.views.jobs import JobId
from api.views.pareto import Pareto, pareto_of
from ml.analysis.findings import Analysis
from ml.analysis.plots import PLOTS, PlotName, PlotOptions
from worker.database.tables import Job
from worker.errors import Conflict, Fact, NotFound

router = APIRouter(tags=["analysis"])

SCRIPT = "/plotly.min.js"
# The page's only script besides plotly's. The figure is a data element of the same page.
DRAW = """const {data, layout} = JSON.parse(document.getElementById("figure").textContent);
Plotly.newPlot("plot", data, layout, {responsive: true, displaylogo: false});"""
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title} – job {job}</title>
<style>html, body, #plot {{ margin: 0; height: 100%; font-family: sans-serif; }}</style>
<div id="plot"></div>
<script type="application/json" id="figure">{figure}</script>
<script src="{script}"></script>
<script>{draw}</script>
</html>
"""
DIGEST = base64.b64encode(hashlib.sha256(DRAW.encode()).digest()).decode()
# Looser than a text page needs: plotly writes style elements, draws on canvases, and evaluates generated code for
# parallel coordinates. The page can load nothing from elsewhere and runs no script of another origin.
POLICY = "; ".join(
    (
        "default-src 'none'",
        f"script-src 'self' 'unsafe-eval' 'sha256-{DIGEST}'",
        "style-src 'unsafe-inline'",
        "img-src data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'self'",
    )
)
FIGURE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "An HTML page, or the figure as plotly's JSON: `data` and `layout`",
        "content": {"text/html": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}},
    }
}
JAVASCRIPT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The script", "content": {"text/javascript": {"schema": {"type": "string"}}}}
}


class PlotRequest(PlotOptions):
    """The options of a plot and its format."""

    format: Literal["html", "json"] = Field("html", description="html: a page; json: the figure as plotly's JSON")


def _job_with_trials(job_id: JobId, database: DatabaseDep) -> Job:
    with database.reading() as session:
        return _with_trials(session.get(Job, job_id))


JobWithTrials = Annotated[Job, Depends(_job_with_trials)]


@router.get("/jobs/{job_id}/analysis", response_class=Response, responses={200: {"model": Analysis}})
async def analyse(job: JobWithTrials, analyses: AnalysesDep) -> Response:
    """Analyse a job's hyper-parameters: correlations, importances, interactions, and accuracy and time by value.

    The first request computes the analysis; it is cached until the job changes. The answer is 503 if computing takes
    too long.
    """
    return Response(await analyses.get(job), media_type="application/json")


@router.get("/jobs/{job_id}/plots/{name}", response_class=Response, responses=FIGURE)
async def plot(
    job: JobWithTrials,
    name: Annotated[PlotName, Path(description="the plot's name")],
    request: Annotated[PlotRequest, Query()],
    analyses: AnalysesDep,
) -> Response:
    """Plot a job's trials. Optuna draws the plots that it knows."""
    given = request.model_dump(exclude_unset=True, exclude={"format"})
    for option in sorted(given.keys() - PLOTS[name].options):
        raise BadInput(f"?{option}", f"{name} has no such option; it has: {', '.join(sorted(PLOTS[name].options))}")
    figure = await analyses.get(job, name, given)
    if request.format == "json":
        return Response(figure, media_type="application/json")
    page = PAGE.format(title=PLOTS[name].title, job=job.id, figure=_as_data(figure), script=SCRIPT, draw=DRAW)
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": POLICY})


@router.get("/jobs/{job_id}/pareto")
def pareto(job_id: JobId, database: DatabaseDep) -> Pareto:
    """Return the Pareto fronts of accuracy against training seconds, FLOPs, weights and latency.

    A trial is on a front if no other trial is at least as accurate for at most the same cost.
    """
    with database.reading() as session:
        return pareto_of(session, _with_trials(session.get(Job, job_id)))


@router.get(SCRIPT, response_class=FileResponse, responses=JAVASCRIPT)
def script() -> Response:
    """Return the script that draws plots, from the plotly package."""
    headers = {"Cache-Control": "public, max-age=86400"}
    return FileResponse(
        _package("plotly") / "package_data/plotly.min.js", media_type="text/javascript", headers=headers
    )


def _with_trials(job: Job | None) -> Job:
    if job is None:
        raise NotFound("there is no such job", Fact.NO_JOB)
    if job.predicts:
        raise Conflict("the job classifies images and has no trials; GET /jobs?state=completed lists others")
    return job


def _as_data(figure: bytes) -> str:
    """Return JSON for a script element; escape each < because it could end the element."""
    return figure.decode().replace("<", "\\u003c")


def _package(name: str) -> pathlib.Path:
    """Return the folder of a package without importing it."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise NotFound(f"{name} is not installed; install Chiffre with its dependencies")
    return pathlib.Path(found.origin).parent
