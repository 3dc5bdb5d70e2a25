"""Commands that classify images: a picture, a subset of a data set, or a file of images."""

import io
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image, ImageOps
from rich.text import Text

from api.cli.output.display import job_view, picture
from api.cli.output.live import follow_job
from api.cli.output.terminal import AsJson, connected, err, fail, out, show
from api.client import FINAL, Chiffre
from ml.artifacts import write

app = typer.Typer()

KINDS = {".npy": "application/x-npy", ".jsonl": "application/jsonl", ".ndjson": "application/x-ndjson"}  # by suffix
PICTURES = {"PNG": "image/png", "JPEG": "image/jpeg"}  # formats that the API reads; others are converted to PNG
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # Pillow's modes that a PNG can hold
MAX_IMAGE_PIXELS = 50_000_000

Model = Annotated[str, typer.Argument(help="a network's name")]
OfDataset = Annotated[str | None, typer.Option("--dataset", help="data set that the network was trained on")]
Following = Annotated[bool, typer.Option("--follow", "-f", help="wait until the job ends")]
Output = Annotated[Path | None, typer.Option("-o", "--output", help="file for the predictions; implies --follow")]


@app.command()
def predict(
    image: Annotated[Path, typer.Argument(help="picture file: a photograph, scan or drawing on any background")],
    model: Annotated[
        str | None, typer.Option(help="a network's name; default: the network with the best champion")
    ] = None,
    dataset: OfDataset = None,
    version: Annotated[int | None, typer.Option(min=1, help="the network's version; default: the champion")] = None,
    as_it_is: Annotated[
        bool, typer.Option("--as-it-is", help="only resize the picture; the ink must be light on dark")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Classify a picture."""
    content, kind = _picture(image)
    options = {"model": model, "dataset": dataset, "version": version, "canonical": False if as_it_is else None}
    with connected() as client:
        answer = client.predict_picture(content, kind, **options)
        if as_json:
            print(json.dumps(answer))
            return
        if "input_report" in answer:
            out.print(picture(answer["input_report"]["pixels"]), highlight=False, markup=False)
        confidence = f" ({100 * answer['confidence']:.1f} %)"
        abstention = f", abstains: {answer['reason']}" if answer["abstained"] else ""
        origin = f"{answer['model']} version {answer['version']}, job {answer['job_id']}, trial {answer['trial']}"
        out.print(Text.assemble((answer["label"], "bold"), f"{confidence}{abstention} by {origin}"), highlight=False)


@app.command()
def predict_all(
    model: Model,
    file: Annotated[Path | None, typer.Option(help=".npy or .jsonl file of images, instead of a data set")] = None,
    dataset: OfDataset = None,
    subset: Annotated[
        str | None, typer.Option(help="subset of the data set: validation (default), test, train or all")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="the network's version; default: the champion")] = None,
    canonical: Annotated[
        bool, typer.Option("--canonical", help="first give the images the form of the data set's images")
    ] = False,
    following: Following = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Classify a subset of a data set, or the images of a file."""
    if file is not None and subset is not None:
        raise typer.BadParameter("--subset does not go with --file; it selects images of a data set")
    upload = None if file is None else _content(file)
    options: dict[str, Any] = {"model": model, "dataset": dataset, "version": version, "canonical": canonical or None}
    with connected() as client:
        if upload is None:
            job = client.predict_all(**options, subset=subset)
        else:
            job = client.predict_file(*upload, **options)
        if following or output is not None:
            job = follow_job(client, job["id"], err if as_json else out)
        _finish(client, job, output, as_json)


@app.command()
def evaluate(
    model: Model,
    version: Annotated[int, typer.Argument(min=1, help="the network's version")],
    dataset: Annotated[str, typer.Argument(help="a data set that the version was not trained on")],
    subset: Annotated[
        str | None, typer.Option(help="subset of the data set: test (default), validation, train or all")
    ] = None,
    resize: Annotated[
        str | None, typer.Option(help="filter that resizes the images: nearest, box, bilinear (default) or bicubic")
    ] = None,
    following: Following = False,
    output: Output = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a version on another data set."""
    with connected() as client:
        job = client.evaluate(model, version, dataset, subset=subset, resize=resize)
        if following or output is not None:
            job = follow_job(client, job["id"], err if as_json else out)
        _finish(client, job, output, as_json)


def _finish(client: Chiffre, job: dict[str, Any], output: Path | None, as_json: bool) -> None:
    """Show a job's result and write its predictions to a file; exit with status 1 if it did not complete."""
    if job["state"] in FINAL and job["state"] != "completed":
        fail(job["error"] or f"job {job['id']} is {job['state']}")
    if output is not None:
        try:
            write(output, client.predictions(job["id"]))
        except OSError as error:
            fail(f"{output} cannot be written: {error.strerror}")
    show(job, as_json, lambda: job_view(job))


def _picture(path: Path) -> tuple[bytes, str]:
    """Return a picture in a format that the API reads, and its content type."""
    Image.MAX_IMAGE_PIXELS = MAX_IMAGE_PIXELS
    try:
        with Image.open(path) as image:
            if image.format in PICTURES:
                return path.read_bytes(), PICTURES[image.format]
            upright, file = ImageOps.exif_transpose(image), io.BytesIO()
            (upright if upright.mode in PNG_MODES else upright.convert("RGB")).save(file, "PNG")
            return file.getvalue(), PICTURES["PNG"]
    except Exception as error:  # Pillow's readers raise many kinds of errors for a damaged file
        fail(f"{path} cannot be read as an image: {error}")


def _content(path: Path) -> tuple[bytes, str]:
    """Return a file's content and its content type."""
    if path.suffix.lower() not in KINDS:
        raise typer.BadParameter(f"{path} is not a file of images; the name must end with {', '.join(KINDS)}")
    try:
        return path.read_bytes(), KINDS[path.suffix.lower()]
    except OSError as error:
        fail(f"{path} cannot be read: {error.strerror}")
