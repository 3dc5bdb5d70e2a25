"""The commands about data sets: what there is, and one's own."""

import io
import zipfile
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from api.cli.output.terminal import AsJson, connected, fail, out, show

app = typer.Typer(help="List data sets, or add one of your own.")

ARCHIVES = (".npz", ".zip")


@app.callback(invoke_without_command=True)
def datasets(context: typer.Context, as_json: AsJson = False) -> None:
    """List data sets, or add one of your own."""
    if context.invoked_subcommand is None:
        with connected() as client:
            items = client.datasets()
            show(items, as_json, lambda: _table(items))


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="what it is to be called; used again, this is a new version")],
    file: Annotated[Path, typer.Argument(help="an .npz or .zip file of images and labels, or the IDX file of images")],
    labels: Annotated[Path | None, typer.Argument(help="the IDX file of labels, where images are one")] = None,
    class_names: Annotated[
        str | None, typer.Option("--classes", help="names of the classes, by label, with commas between")
    ] = None,
    description: Annotated[str | None, typer.Option(help="a sentence about it")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload a data set of your own."""
    names = class_names.split(",") if class_names is not None else None
    archive = _archive(file, labels)
    with connected() as client:
        added = client.add_dataset(name, archive, classes=names, description=description)
        show(added, as_json, lambda: _table([added]))
        if not as_json:
            out.print(f'A specification names it as "{added["dataset"]}".', highlight=False)


def _archive(file: Path, labels: Path | None) -> bytes:
    """The archive that is sent: the file, or the two files in one."""
    if (labels is None) != (file.suffix.lower() in ARCHIVES):
        one = f"one file whose name ends with {' or '.join(ARCHIVES)}"
        raise typer.BadParameter(f"give {one}, or two IDX files: of images and of labels")
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
        table.add_row(item["dataset"], str(item["images"]), shape, str(len(item["classes"])), item["sha256"][:12])
    return table
