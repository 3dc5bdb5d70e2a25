"""Commands about published versions: list, promote, roll back, show cards and download."""

import json
from pathlib import Path
from typing import Annotated

import typer

from api.cli.output.display import model_table
from api.cli.output.terminal import AsJson, connected, fail, show
from ml.artifacts import write

app = typer.Typer()

Model = Annotated[str, typer.Argument(help="a network's name")]
Version = Annotated[int, typer.Argument(min=1, help="a version's number")]
OfDataset = Annotated[
    str | None,
    typer.Option("--dataset", help="data set of the champion; required if the network has several champions"),
]

SERVES = "{model} version {version} serves {dataset}"  # filled in with a champion in the API's JSON


@app.command()
def models(as_json: AsJson = False) -> None:
    """List published versions; * marks the champions."""
    with connected() as client:
        items = client.models()
        show(items, as_json, lambda: model_table(items))


@app.command()
def promote(
    model: Model,
    version: Version,
    dataset: Annotated[
        str | None, typer.Option(help="data set of the version; optional, checked against the version if given")
    ] = None,
    reason: Annotated[str | None, typer.Option(help="reason for the champion history")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a version the champion for the data set that it was trained on."""
    with connected() as client:
        champion = client.promote(model, version, dataset, reason)
        print(json.dumps(champion) if as_json else SERVES.format(**champion))


@app.command()
def rollback(model: Model, dataset: OfDataset = None, as_json: AsJson = False) -> None:
    """Undo the last move of a champion. Each further call undoes one more move."""
    with connected() as client:
        champion = client.rollback(model, dataset)
        print(json.dumps(champion) if as_json else SERVES.format(**champion))


@app.command()
def card(model: Model, version: Version, as_json: AsJson = False) -> None:
    """Print a version's model card as Markdown; with --json print the version."""
    with connected() as client:
        if as_json:
            print(json.dumps(client.version(model, version)))
        else:
            print(client.card(model, version), end="")


@app.command()
def download(
    model: Model,
    version: Version,
    onnx: Annotated[bool, typer.Option("--onnx/--checkpoint", help="ONNX graph, or weights as safetensors")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="file to write; default: MODEL-VERSION and the suffix")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download a version's weights or graph, and verify the hash."""
    kind, suffix = ("onnx", "onnx") if onnx else ("checkpoint", "safetensors")
    path = output or Path(f"{model}-{version}.{suffix}")
    with connected() as client:
        content = client.download(model, version, kind)
        try:
            saved = write(path, content)
        except OSError as error:
            fail(f"{path} cannot be written: {error.strerror}")
        found = {"file": str(path), "bytes": saved.size, "sha256": saved.sha256}
        print(json.dumps(found) if as_json else f"{path}: {saved.size:,} bytes, SHA-256 {saved.sha256}")
