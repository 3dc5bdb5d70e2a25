"""The commands that ask about images: one picture, part of a data set, or the images of a file."""

import io
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image, ImageOps
from rich.text import Text

from api.cli.output.display import job_view, picture
from api.cli.output.live import follow
from api.cli.output.terminal import AsJson, connected, err, fail, out, show
from api.client import FINAL, Chiffre
from ml.artifacts import write

app = typer.Typer()

KINDS = {".npy": "application/x-npy", ".jsonl": "application/jsonl", ".ndjson": "application/x-ndjson"}  # by suffix
PICTURES = {"PNG": "image/png", "JPEG": "image/jpeg"}  # what the API reads; others are sent as PNG
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # Pillow's, that a PNG can hold
MAX_IMAGE_PIXELS = 50_000_000


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="a picture: a photograph, a scan or a drawing, on any ground")],
    model: Annotated[str | None, typer.Option(help="a network; without it the best of all answers")] = None,
    dataset: Annotated[str | None, typer.Option(help="what the network was trained on")] = None,
    version: Annotated[int | None, typer.Option(min=1, help="a version of the network; else its champion")] = None,
    as_it_is: Annotated[bool, typer.Option("--as-it-is", help="only scale it; the ink must be light already")] = False,
    as_json: AsJson = False,
) -> None:
    """Ask what a picture shows."""
    content, kind = _picture(image)
    asked = {"model": model, "dataset": dataset, "version": version, "canonical": False if as_it_is else None}
    with connected() as client:
        answer = client.predict_picture(content, kind, **asked)
        if as_json:
            print(json.dumps(answer))
            return
        if "input_report" in answer:
            out.print(picture(answer["input_report"]["pixels"]), highlight=False, markup=False)
        sure = f" ({100 * answer['confidence']:.1f} %)"
        doubt = f", abstains: {answer['reason']}" if answer["abstained"] else ""
        origin = f"{answer['model']} version {answer['version']}, job {answer['job_id']}, trial {answer['trial']}"
        out.print(Text.assemble((answer["label"], "bold"), f"{sure}{doubt} by {origin}"), highlight=False)


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
    if file is not None and subset is not None:
        raise typer.BadParameter("--subset is of a data set; leave it out with --file")
    sent = None if file is None else _content(file)
    asked: dict[str, Any] = {"model": model, "dataset": dataset, "version": version, "canonical": canonical or None}
    with connected() as client:
        job = client.predict_all(**asked, subset=subset) if sent is None else client.predict_file(*sent, **asked)
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
    show(job, as_json, lambda: job_view(job))


def _picture(path: Path) -> tuple[bytes, str]:
    """A picture as the API reads it, and its content type."""
    Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS
    try:
        with Image.open(path) as image:
            if image.format in PICTURES:
                return path.read_bytes(), PICTURES[image.format]
            upright, file = ImageOps.exif_transpose(image), io.BytesIO()
            (upright if upright.mode in PNG_MODES else upright.convert("RGB")).save(file, "PNG")
            return file.getvalue(), PICTURES["PNG"]
    except Exception as error:  # whatever Pillow's many readers raise of a damaged file
        fail(f"{path} cannot be read as an image: {error}")


def _content(path: Path) -> tuple[bytes, str]:
    """A file's content and its content type."""
    if path.suffix.lower() not in KINDS:
        raise typer.BadParameter(f"{path} is of no kind that is known; its name ends with one of {', '.join(KINDS)}")
    try:
        return path.read_bytes(), KINDS[path.suffix.lower()]
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}")
