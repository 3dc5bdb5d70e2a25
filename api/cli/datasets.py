"""Commands about data sets: list and upload them."""

import io
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from api.cli.output.terminal import AsJson, connected, fail, out, show

app = typer.Typer(help="List data sets, or upload one.")

ARCHIVES = (".npz", ".zip")


@app.callback(invoke_without_command=True)
def datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List data sets, or upload one."""
    if context.invoked_subcommand is None:
        with connected() as client:
            items = client.datasets()
            show(items, as_json, lambda: _table(items))


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="name of the data set; a used name gets a new version")],
    file: Annotated[Path, typer.Argument(help=".npz or .zip file of images and labels, or IDX file of images")],
    labels: Annotated[Path | None, typer.Argument(help="IDX file of labels, if FILE is an IDX file")] = None,
    class_names: Annotated[
        str | None, typer.Option("--classes", help="class names in the order of the labels, separated by commas")
    ] = None,
    description: Annotated[str | None, typer.Option(help="what the images show")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a data set. Uploading identical data again changes nothing."""
    names = class_names.split(",") if class_names is not None else None
    archive = _archive(file, labels)
    with connected() as client:
        added = client.add_dataset(name, archive, classes=names, description=description)
        show(added, as_json, lambda: _table([added]))
        if not as_json:
            out.print(f'Use it in a specification as "{added["dataset"]}".', highlight=False)


def _archive(file: Path, labels: Path | None) -> bytes:
    """Return the archive to upload: the file itself, or both IDX files in a zip archive."""
    if (labels is None) != (file.suffix.lower() in ARCHIVES):
        raise typer.BadParameter(f"give either one {' or '.join(ARCHIVES)} file, or two IDX files: images and labels")
    try:
        if labels is None:
            return file.read_bytes()
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("images", file.read_bytes())
            archive.writestr("labels", labels.read_bytes())
        return packed.getvalue()
    except OSError as error:
        fail(f"{error.filename or file} cannot be read: {error.strerror}")


def _table(items: list[dict[str, Any]]) -> Table:
    table = Table("data set", "images", "shape", "classes", "sha256", header_style="bold", box=SIMPLE_HEAD)
    for item in items:
        shape = "×".join(map(str, item["shape"]))
        table.add_row(item["dataset"], f"{item['images']:,}", shape, str(len(item["classes"])), item["sha256"][:12])
    return table
