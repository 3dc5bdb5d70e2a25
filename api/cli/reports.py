"""The commands that take a job out of Chiffre: as a report, or for TensorBoard, optuna-dashboard and spreadsheets."""

import json
from http import HTTPStatus
from pathlib import Path
from typing import Annotated

import typer

from api.cli.output.terminal import AsJson, connected, fail
from api.client import Chiffre
from api.connection import ApiError
from api.report.wording import Language
from ml.artifacts import write

app = typer.Typer()

JobId = Annotated[str, typer.Argument(help="a job's id")]
AnyId = Annotated[str, typer.Argument(metavar="ID", help="a job's id, or a group's as `experiments` printed it")]


@app.command()
def report(
    any_id: AnyId,
    lang: Annotated[Language, typer.Option(help="its language")] = "en",
    output: Annotated[
        Path | None, typer.Option("-o", "--out", "--output", help="a file; by default report-ID.html")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write what a job, or a group of experiments, did and found as one HTML file that needs nothing else."""
    path = output or Path(f"report-{any_id}.html")
    with connected() as client:
        page = _report(client, any_id, lang)
        try:
            saved = write(path, page.encode())
        except OSError as error:
            fail(f"{path} cannot be written: {error.strerror}")
        found = {"file": str(path), "bytes": saved.size, "sha256": saved.sha256}
        print(json.dumps(found) if as_json else f"{path}: {saved.size:,} bytes, SHA-256 {saved.sha256}")


def _report(client: Chiffre, any_id: str, lang: Language) -> str:
    """The report of whichever has that id; a job is told of where neither has it."""
    try:
        return client.report(any_id, lang)
    except ApiError as no_job:
        if no_job.status != HTTPStatus.NOT_FOUND:
            raise
        try:
            return client.group_report(any_id, lang)
        except ApiError as no_group:
            raise (no_job if no_group.status == HTTPStatus.NOT_FOUND else no_group) from None


@app.command()
def export(
    job_id: JobId,
    tensorboard: Annotated[
        Path | None, typer.Option(help="a new folder for TensorBoard's event files, a run a trial, with HParams")
    ] = None,
    optuna: Annotated[Path | None, typer.Option(help="a new Optuna journal file, as optuna-dashboard opens")] = None,
    csv: Annotated[Path | None, typer.Option(help="a new CSV file, a row a trial")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a job's trials for other tools."""
    if tensorboard is None and optuna is None and csv is None:
        raise typer.BadParameter("say what to write: --tensorboard FOLDER, --optuna FILE, --csv FILE or several")
    from api.cli import exports  # torch and optuna are for those who need them

    made: dict[str, int] = {}  # trials by file or folder
    with connected() as client:
        try:
            if tensorboard is not None:
                made[str(tensorboard)] = exports.tensorboard(client, job_id, tensorboard)
            if optuna is not None:
                made[str(optuna)] = exports.journal(client, job_id, optuna)
            if csv is not None:
                made[str(csv)] = exports.table(client, job_id, csv)
        except OSError as error:
            fail(f"{error.filename or 'it'} cannot be written: {error.strerror}")
    print(json.dumps(made) if as_json else "\n".join(f"{path}: {trials} trials" for path, trials in made.items()))
