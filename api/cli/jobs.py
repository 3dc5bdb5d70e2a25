"""Commands about jobs: submit, list, show and control them, and replay their trials."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from api.cli.output.display import check_view, job_table, job_view, rung_table, trial_table
from api.cli.output.live import follow_job
from api.cli.output.terminal import AsJson, connected, err, fail, out, reporting_errors, show
from ml.presets import preset_body, trains

app = typer.Typer()

Follow = Annotated[bool, typer.Option("--follow", "-f", help="show the trials live until the job ends")]
Check = Annotated[
    bool, typer.Option("--check", help="submit nothing; print the complete specification and the estimated duration")
]
SpecFile = Annotated[
    Path, typer.Argument(help="JSON file with the specification; - for standard input", allow_dash=True)
]
JobId = Annotated[str, typer.Argument(help="a job's id")]


@app.command()
def tune(
    spec: Annotated[
        Path | None, typer.Argument(help="JSON file with the specification; - for standard input", allow_dash=True)
    ] = None,
    preset: Annotated[str | None, typer.Option(help="name of a built-in specification")] = None,
    follow: Follow = False,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Submit a tuning job, or a preset (`chiffre presets` lists them)."""
    if (spec is None) == (preset is None):
        raise typer.BadParameter("give either a file or --preset; `chiffre presets` lists the presets")
    with reporting_errors():
        body = preset_body(preset) if preset is not None else _spec(cast("Path", spec))
    kind = "train" if preset is not None and trains(body) else "tune"
    _check(kind, body, as_json) if check else _submit(kind, body, follow, as_json)


@app.command()
def train(spec: SpecFile, follow: Follow = False, check: Check = False, as_json: AsJson = False) -> None:
    """Submit a training job."""
    body = _spec(spec)
    _check("train", body, as_json) if check else _submit("train", body, follow, as_json)


@app.command()
def jobs(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="number of jobs")] = 20, as_json: AsJson = False
) -> None:
    """List jobs, newest first."""
    with connected() as client:
        items = client.jobs(limit)
        show(items, as_json, lambda: job_table(items))


@app.command()
def job(job_id: JobId, as_json: AsJson = False) -> None:
    """Show a job: its progress, and its result or error."""
    with connected() as client:
        found = client.job(job_id)
        show(found, as_json, lambda: job_view(found))


@app.command()
def trials(
    job_id: JobId,
    state: Annotated[str | None, typer.Option(help="only trials in this state")] = None,
    order_by: Annotated[str, typer.Option(help="column; a leading - puts the largest first")] = "number",
    as_json: AsJson = False,
) -> None:
    """List a job's trials."""
    with connected() as client:
        found = list(client.trials(job_id, state=state, order_by=order_by, limit=1000))
        best = client.job(job_id)["best"]
        show(found, as_json, lambda: trial_table(found, best and best["trial"]))


@app.command()
def replay(
    job_id: JobId, number: Annotated[int, typer.Argument(min=0, help="the trial's number")], as_json: AsJson = False
) -> None:
    """Train a trial again, alone and on this machine, and compare it with the record."""
    from api.cli.replay import replay_trial  # imports torch, which the other commands do without

    with connected() as client:
        rungs = list(replay_trial(client, job_id, number))
        show([asdict(rung) for rung in rungs], as_json, lambda: rung_table(rungs))
        if not as_json:
            points = rungs[-1].points
            result = (
                "no comparison, a training diverged" if points is None else f"accuracy differs by {points:.2f} points"
            )
            out.print(f"Trial {number} of job {job_id}: {result}.", highlight=False)


@app.command()
def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Cancel a job."""
    with connected() as client:
        found = client.cancel(job_id)
        show(found, as_json, lambda: job_table([found]))


@app.command()
def pause(job_id: JobId, as_json: AsJson = False) -> None:
    """Pause a job until it is resumed."""
    with connected() as client:
        found = client.pause(job_id)
        show(found, as_json, lambda: job_table([found]))


@app.command()
def resume(job_id: JobId, as_json: AsJson = False) -> None:
    """Resume a paused job."""
    with connected() as client:
        found = client.resume(job_id)
        show(found, as_json, lambda: job_table([found]))


@app.command()
def extend(
    job_id: JobId,
    trials: Annotated[int | None, typer.Option(min=1, help="new total number of trials")] = None,
    seconds: Annotated[
        float | None, typer.Option(min=0, help="new limit of the time with at least one trial running")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Change a job's limits. Raising a limit restarts a completed job."""
    limits = {name: value for name, value in (("trials", trials), ("seconds", seconds)) if value is not None}
    if not limits:
        raise typer.BadParameter("give a new limit: --trials, --seconds or both")
    with connected() as client:
        found = client.extend(job_id, **limits)
        show(found, as_json, lambda: job_table([found]))


def _submit(kind: str, spec: dict[str, Any], following: bool, as_json: bool) -> None:
    with connected() as client:
        submitted = client.tune(spec) if kind == "tune" else client.train(spec)
        if following:
            submitted = follow_job(client, submitted["id"], err if as_json else out)
        show(submitted, as_json, lambda: job_table([submitted]))
        if submitted["state"] == "failed":
            fail(submitted["error"])


def _check(kind: str, spec: dict[str, Any], as_json: bool) -> None:
    with connected() as client:
        found = client.validate(spec, kind)
        show(found, as_json, lambda: check_view(found))


def _spec(path: Path) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
        spec = json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{path} cannot be read: {error}")
    except (ValueError, RecursionError) as error:
        fail(f"{path} is not valid JSON: {error}")
    if not isinstance(spec, dict):
        fail(f'{path} holds no JSON object; a specification looks like {{"model": "cnn", "dataset": "mnist"}}')
    return spec
