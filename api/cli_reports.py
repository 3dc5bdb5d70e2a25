"""The commands that take a job out of Chiffre: as a report, or for TensorBoard and optuna-dashboard."""

from pathlib import Path
from typing import Annotated

import typer

from api.report.wording import Language
from api.terminal import connected, fail
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
) -> None:
    """Write what a job did and found as one HTML file that needs nothing else."""
    path = output or Path(f"report-{job_id}.html")
    with connected() as client:
        page = client.report(job_id, lang)
        try:
            saved = write(path, page.encode())
        except OSError as error:
            fail(f"{path} cannot be written: {error.strerror}")
        print(f"{path}: {saved.size:,} bytes, SHA-256 {saved.sha256}")
