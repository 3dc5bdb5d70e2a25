"""The command about many images: classify part of a data set, or the images of a file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from api.client import FINAL, Chiffre
from api.display import job_table, result_view
from api.live import follow
from api.terminal import AsJson, connected, err, fail, out, show
from ml.artifacts import write

app = typer.Typer()

KINDS = {".npy": "application/x-npy", ".jsonl": "application/jsonl", ".ndjson": "application/x-ndjson"}  # by suffix


@app.command()
def predict_all(
    model: Annotated[str, typer.Argument(help="a network's name")],
    file: Annotated[Path | None, typer.Option(help="an .npy or .jsonl file of images, instead of a data set")] = None,
    dataset: Annotated[str | None, typer.Option(help="what the network was trained on")] = None,
    subset: Annotated[str | None, typer.Option(help="validation, test, train or all of the data set")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="a version; without it the champion")] = None,
    canonical: Annotated[bool, typer.Option("--canonical", help="bring images to the data set's form first")] = False,
    following: Annotated[bool, typer.Option("--follow", "-f", help="wait until the job ends")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="a file for the results")] = None,
    as_json: AsJson = False,
) -> None:
    """Classify part of a data set, or the images of a file."""
    asked: dict[str, Any] = {"model": model, "dataset": dataset, "version": version, "canonical": canonical or None}
    with connected() as client:
        if file is None:
            job = client.predict_all(**asked, subset=subset)
        elif subset is not None:
            fail("--subset is of a data set; leave it out with --file")
        else:
            content, kind = _content(file)
            job = client.predict_file(content, kind, **asked)
        if following or output is not None:
            job = follow(client, job["id"], err if as_json else out)
        _tell(client, job, output, as_json)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="a network's name")],
    version: Annotated[int, typer.Argument(min=1, help="its version")],
    dataset: Annotated[str, typer.Argument(help="another data set than the version was trained on")],
    subset: Annotated[str | None, typer.Option(help="test, validation, train or all of it")] = None,
    resize: Annotated[str | None, typer.Option(help="nearest, box, bilinear or bicubic")] = None,
    following: Annotated[bool, typer.Option("--follow", "-f", help="wait until the job ends")] = False,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="a file for the results")] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a version on another data set."""
    with connected() as client:
        job = client.evaluate(model, version, dataset, subset=subset, resize=resize)
        if following or output is not None:
            job = follow(client, job["id"], err if as_json else out)
        _tell(client, job, output, as_json)


def _tell(client: Chiffre, job: dict[str, Any], output: Path | None, as_json: bool) -> None:
    """Show what a job has found, and put it into a file; end with status 1 where it found nothing."""
    if job["state"] in FINAL and job["state"] != "completed":
        fail(job["error"] or f"job {job['id']} is {job['state']}")
    if output is not None:
        try:
            write(output, client.predictions(job["id"]))
        except OSError as error:
            fail(f"{output} cannot be written: {error.strerror}")
    show(job, as_json, lambda: job_table([job]))
    if job["result"] is not None and not as_json:
        out.print(result_view(job["result"]))


def _content(path: Path) -> tuple[bytes, str]:
    """A file's content and its content type."""
    if path.suffix.lower() not in KINDS:
        fail(f"{path} is of no kind that is known; its name ends with one of {', '.join(KINDS)}")
    try:
        return path.read_bytes(), KINDS[path.suffix.lower()]
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}")
