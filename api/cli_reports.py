"""The commands that take a job out of Chiffre: as a report, or for TensorBoard and optuna-dashboard."""

import json
from pathlib import Path
from typing import Annotated

import typer

from api.report.wording import Language
from api.terminal import AsJson, connected, fail
from ml.artifacts import write

app = typer.Typer()

JobId = Annotated[str, typer.Argument(help="a job's id")]


@app.command()
def report(
    job_id: JobId,
    lang: Annotated[Language, typer.Option(help="its language")] = "en",
    output: Annotated[
        Path | None, typer.Option("-o", "--out", "--output", help="a file; by default report-JOB.html")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what a job did and found as one HTML file that needs nothing else."""
    path = output or Path(f"report-{job_id}.html")
    with connected() as client:
        page = client.report(job_id, lang)
        try:
            saved = write(path, page.encode())
        except OSError as error:
            fail(f"{path} cannot be written: {error.strerror}")
        found = {"file": str(path), "bytes": saved.size, "sha256": saved.sha256}
        print(json.dumps(found) if as_json else f"{path}: {saved.size:,} bytes, SHA-256 {saved.sha256}")


@app.command()
def export(
    job_id: JobId,
    tensorboard: Annotated[
        Path | None, typer.Option(help="a new folder for TensorBoard's event files, a run a trial, with HParams")
    ] = None,
    optuna: Annotated[Path | None, typer.Option(help="a new Optuna journal file, as optuna-dashboard opens")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a job's trials for other tools; `chiffre trials` and the API's CSV have them as a table."""
    if tensorboard is None and optuna is None:
        fail("say what to write: --tensorboard FOLDER, --optuna FILE or both")
    from api import exports  # torch and optuna are for those who need them

    made: dict[str, int] = {}  # trials by file or folder
    with connected() as client:
        try:
            if tensorboard is not None:
                made[str(tensorboard)] = exports.tensorboard(client, job_id, tensorboard)
            if optuna is not None:
                made[str(optuna)] = exports.journal(client, job_id, optuna)
        except OSError as error:
            fail(f"{error.filename} cannot be written: {error.strerror}")
    print(json.dumps(made) if as_json else "\n".join(f"{path}: {trials} trials" for path, trials in made.items()))
