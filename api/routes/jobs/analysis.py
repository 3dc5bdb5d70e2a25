"""What a job's trials say: analysis, plots, and what accuracy costs."""

import base64
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response
from fastapi.responses import FileResponse
from pydantic import Field

from api.deps import AnalysesDep, DatabaseDep
from api.http.errors import BadInput
from api.views.jobs import JobId
from api.views.pareto import Pareto, pareto_of
from ml.analysis.findings import Analysis
from ml.analysis.plots import PLOTS, PlotName, PlotOptions
from worker.database.tables import Job
from worker.errors import Conflict, NotFound

router = APIRouter(tags=["analysis"])

SCRIPT = "/plotly.min.js"
# The one script of a page but plotly's own; the figure lies beside it as data.
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
# Looser than a page of text needs: plotly writes style elements, draws into canvases, and evaluates code of its own for
# parallel coordinates. It can reach nothing, and runs nothing that did not come from here.
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
        "description": "A page, or the figure as plotly's JSON: `data` and `layout`",
        "content": {"text/html": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "object"}}},
    }
}
JAVASCRIPT: dict[int | str, dict[str, Any]] = {
    200: {"description": "The script", "content": {"text/javascript": {"schema": {"type": "string"}}}}
}


class PlotRequest(PlotOptions):
    """What a plot shows, and as what."""

    format: Literal["html", "json"] = Field("html", description="a page, or the figure as plotly's JSON")


def _searched(job_id: JobId, database: DatabaseDep) -> Job:
    with database.reading() as session:
        return _with_trials(session.get(Job, job_id))


Searched = Annotated[Job, Depends(_searched)]


@router.get("/jobs/{job_id}/analysis", response_class=Response, responses={200: {"model": Analysis}})
async def analyse(job: Searched, analyses: AnalysesDep) -> Response:
    """Correlations, importances and interactions of a job's hyper-parameters; accuracy and time against each.

    It is made when it is asked for, and kept until the job has changed. 503 where that takes too long.
    """
    return Response(await analyses.made(job), media_type="application/json")


@router.get("/jobs/{job_id}/plots/{name}", response_class=Response, responses=FIGURE)
async def plot(
    job: Searched,
    name: PlotName,
    asked: Annotated[PlotRequest, Query()],
    analyses: AnalysesDep,
) -> Response:
    """One plot of a job's trials, drawn by Optuna where it has such a one."""
    given = asked.model_dump(exclude_unset=True, exclude={"format"})
    for option in sorted(given.keys() - PLOTS[name].options):
        raise BadInput(f"?{option}", f"{name} has no such option; it has: {', '.join(sorted(PLOTS[name].options))}")
    figure = await analyses.made(job, name, given)
    if asked.format == "json":
        return Response(figure, media_type="application/json")
    page = PAGE.format(title=PLOTS[name].title, job=job.id, figure=_as_data(figure), script=SCRIPT, draw=DRAW)
    return Response(page, media_type="text/html", headers={"Content-Security-Policy": POLICY})


@router.get("/jobs/{job_id}/pareto")
def pareto(job_id: JobId, database: DatabaseDep) -> Pareto:
    """Accuracy against training seconds, FLOPs, weights and latency: the trials that no other beats in both."""
    with database.reading() as session:
        return pareto_of(session, _with_trials(session.get(Job, job_id)))


@router.get(SCRIPT, response_class=FileResponse, responses=JAVASCRIPT)
def script() -> Response:
    """The script that draws plots, as it comes with plotly's package."""
    headers = {"Cache-Control": "public, max-age=86400"}
    return FileResponse(
        _package("plotly") / "package_data/plotly.min.js", media_type="text/javascript", headers=headers
    )


def _with_trials(job: Job | None) -> Job:
    if job is None:
        raise NotFound("there is no such job; GET /jobs lists them")
    if job.predicts:
        raise Conflict("the job classifies images and has no trials; GET /jobs?state=completed lists others")
    return job


def _as_data(figure: bytes) -> str:
    """JSON inside a script element: what could end the element is written otherwise."""
    return figure.decode().replace("<", "\\u003c")


def _package(name: str) -> Path:
    """Where a package lies, without importing it."""
    found = find_spec(name)
    if found is None or found.origin is None:
        raise NotFound(f"{name} is not installed; install Chiffre with what it depends on")
    return Path(found.origin).parent
