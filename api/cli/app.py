"""The `chiffre` command: `up` and `worker` start services, the others are clients of the HTTP API."""

import json
import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn, cast

import typer

from api.cli import datasets as cli_datasets
from api.cli import experiments as cli_experiments
from api.cli import models as cli_models
from api.cli import predictions as cli_predictions
from api.cli import presets as cli_presets
from api.cli import reports as cli_reports
from api.cli import watch as cli_watch
from api.cli.output.display import check_view, job_table, job_view, rung_table, trial_table
from api.cli.output.live import follow as follow_live
from api.cli.output.terminal import AsJson, connected, err, fail, out, reporting_errors, show
from ml.presets import preset_body, trains
from worker.database.engine import Database
from worker.database.migrations import migrate as migrate_schema
from worker.local import WORKER, local_services
from worker.settings import Settings

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
app.add_typer(cli_models.app)
app.add_typer(cli_predictions.app)
app.add_typer(cli_reports.app)
app.add_typer(cli_watch.app)
app.add_typer(cli_datasets.app, name="datasets")
app.add_typer(cli_experiments.app)
app.add_typer(cli_presets.app)

Follow = Annotated[bool, typer.Option("--follow", "-f", help="show the trials live until the job ends")]
Check = Annotated[bool, typer.Option("--check", help="post nothing: print the whole job, and how long it may take")]
SpecFile = Annotated[Path, typer.Argument(help="a JSON file, - for standard input", allow_dash=True)]
JobId = Annotated[str, typer.Argument(help="a job's id")]


@app.command()
def up(
    host: Annotated[str, typer.Option(help="the address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="the port to listen on")] = 8000,
    home: Annotated[Path, typer.Option(envvar="CHIFFRE_HOME", help="the folder for all state")] = Path(".chiffre"),
) -> None:
    """Start everything in the foreground: a private Valkey, a worker and the API. Ctrl-C ends all of it."""
    # SIGINT too: a shell starts background jobs with it ignored.
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    with reporting_errors(), local_services(Settings(home=home), host, port) as services:
        try:
            print(f"Chiffre is ready at {services.url}", flush=True)
            services.watch()
        except KeyboardInterrupt:
            err.print("Stopping …")


@app.command()
def worker() -> None:
    """Run a worker on this machine for the database and broker that the environment names."""
    with reporting_errors():
        broker = Settings().broker
    if broker is None:
        fail("name the broker with CHIFFRE_BROKER_URL and the database with CHIFFRE_DATABASE_URL; or use `chiffre up`")
    os.execv(WORKER[0], WORKER)


@app.command()
def migrate() -> None:
    """Bring the schema of the database that the environment names up to date."""
    with reporting_errors():
        migrate_schema(Database(Settings().database))


@app.command()
def tune(
    spec: Annotated[Path | None, typer.Argument(help="a JSON file, - for standard input", allow_dash=True)] = None,
    preset: Annotated[str | None, typer.Option(help="a specification that comes with Chiffre")] = None,
    follow: Follow = False,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Post a tuning job, or a preset (`chiffre presets` lists them)."""
    if (spec is None) == (preset is None):
        raise typer.BadParameter("give a file or --preset; `chiffre presets` lists those that come with Chiffre")
    with reporting_errors():
        body = preset_body(preset) if preset is not None else _spec(cast("Path", spec))
    kind = "train" if preset is not None and trains(body) else "tune"
    _check(kind, body, as_json) if check else _post(kind, body, follow, as_json)


@app.command()
def train(spec: SpecFile, follow: Follow = False, check: Check = False, as_json: AsJson = False) -> None:
    """Post a training job."""
    body = _spec(spec)
    _check("train", body, as_json) if check else _post("train", body, follow, as_json)


@app.command()
def jobs(limit: Annotated[int, typer.Option(min=1, max=1000)] = 20, as_json: AsJson = False) -> None:
    """List the newest jobs."""
    with connected() as client:
        items = client.jobs(limit)
        show(items, as_json, lambda: job_table(items))


@app.command()
def job(job_id: JobId, as_json: AsJson = False) -> None:
    """Show one job: how far it is, and why it failed or what it found."""
    with connected() as client:
        found = client.job(job_id)
        show(found, as_json, lambda: job_view(found))


@app.command()
def trials(
    job_id: JobId,
    state: Annotated[str | None, typer.Option(help="only trials in this state")] = None,
    order_by: Annotated[str, typer.Option(help="a column; with - before it the largest first")] = "number",
    as_json: AsJson = False,
) -> None:
    """Show a job's trials."""
    with connected() as client:
        found = list(client.trials(job_id, state=state, order_by=order_by, limit=1000))
        best = client.job(job_id)["best"]
        show(found, as_json, lambda: trial_table(found, best and best["trial"]))


@app.command()
def replay(
    job_id: JobId, number: Annotated[int, typer.Argument(min=0, help="a trial's number")], as_json: AsJson = False
) -> None:
    """Train one trial again, alone and on this machine, and say how far it ends from what was recorded."""
    from api.cli.replay import replay_trial  # torch is for those who train

    with connected() as client:
        rungs = list(replay_trial(client, job_id, number))
        show([asdict(rung) for rung in rungs], as_json, lambda: rung_table(rungs))
        if not as_json:
            last = rungs[-1].points
            words = "and one of the two diverged" if last is None else f"{last:.2f} points from what was recorded"
            out.print(f"Trial {number} of job {job_id} ends {words}.", highlight=False)


@app.command()
def cancel(job_id: JobId, as_json: AsJson = False) -> None:
    """Cancel a job."""
    with connected() as client:
        found = client.cancel(job_id)
        show(found, as_json, lambda: job_table([found]))


@app.command()
def pause(job_id: JobId, as_json: AsJson = False) -> None:
    """Let nothing of a job be worked on until it is resumed."""
    with connected() as client:
        found = client.pause(job_id)
        show(found, as_json, lambda: job_table([found]))


@app.command()
def resume(job_id: JobId, as_json: AsJson = False) -> None:
    """Let a paused job go on from where it was."""
    with connected() as client:
        found = client.resume(job_id)
        show(found, as_json, lambda: job_table([found]))


@app.command()
def extend(
    job_id: JobId,
    trials: Annotated[int | None, typer.Option(min=1, help="trials in all")] = None,
    seconds: Annotated[float | None, typer.Option(min=0, help="time with at least one trial running")] = None,
    as_json: AsJson = False,
) -> None:
    """Change a job's limits; a completed one goes on where they allow it."""
    limits = {name: value for name, value in (("trials", trials), ("seconds", seconds)) if value is not None}
    if not limits:
        raise typer.BadParameter("say what to change: --trials, --seconds or both")
    with connected() as client:
        found = client.extend(job_id, **limits)
        show(found, as_json, lambda: job_table([found]))


@app.command()
def demo() -> None:
    """Run the main job from beginning to end on services of its own."""
    from api.cli.demo import demo as run

    signal.signal(signal.SIGTERM, _interrupt)
    with reporting_errors():
        run(out)


def _post(kind: str, spec: dict[str, Any], following: bool, as_json: bool) -> None:
    with connected() as client:
        posted = client.tune(spec) if kind == "tune" else client.train(spec)
        if following:
            posted = follow_live(client, posted["id"], err if as_json else out)
        show(posted, as_json, lambda: job_table([posted]))
        if posted["state"] == "failed":
            fail(posted["error"])


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
        fail(f"{path} is not JSON: {error}")
    if not isinstance(spec, dict):
        fail(f"{path} holds no JSON object; the README shows one")
    return spec


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    app()
