"""Commands that write files about a job: a report, or trials for TensorBoard, optuna-dashboard and spreadsheets."""

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
AnyId = Annotated[str, typer.Argument(metavar="ID", help="id of a job, or of a group of experiments")]


@app.command()
def report(
    any_id: AnyId,
    lang: Annotated[Language, typer.Option(help="language of the report")] = "en",
    output: Annotated[
        Path | None, typer.Option("-o", "--out", "--output", help="file to write; default: report-ID.html")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the report of a job, or of a group of experiments, as one self-contained HTML file."""
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
    """Return the report of the job or the group with this id.

    Raises:
        ApiError: the error about the job, if neither exists.

    """
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
        Path | None, typer.Option(help="new folder for TensorBoard event files with HParams, one run per trial")
    ] = None,
    optuna: Annotated[Path | None, typer.Option(help="new Optuna journal file, for optuna-dashboard")] = None,
    csv: Annotated[Path | None, typer.Option(help="new CSV file, one row per trial")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a job's trials for TensorBoard, for Optuna or as CSV."""
    if tensorboard is None and optuna is None and csv is None:
        raise typer.BadParameter("give one or more of --tensorboard FOLDER, --optuna FILE and --csv FILE")
    from api.cli import exports  # imports torch and optuna, which the other commands do without

    wanted = ((exports.tensorboard, tensorboard), (exports.journal, optuna), (exports.table, csv))
    with connected() as client:
        try:
            written = {str(path): export(client, job_id, path) for export, path in wanted if path is not None}
        except OSError as error:
            fail(f"{error.filename or 'the file'} cannot be written: {error.strerror}")
    print(json.dumps(written) if as_json else "\n".join(f"{path}: {n:,} trials" for path, n in written.items()))
