"""The commands about published versions: list, promote, roll back, read about and download."""

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
OfDataset = Annotated[str | None, typer.Option("--dataset", help="needed where the network has several champions")]

ANSWERS = "{model} version {version} answers for {dataset}"  # a champion, as the API describes it


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the published versions; a star marks the champions."""
    with connected() as client:
        items = client.models()
        show(items, as_json, lambda: model_table(items))


@app.command()
def promote(
    model: Model,
    version: Version,
    dataset: Annotated[str | None, typer.Option(help="the version's own, which is known without it")] = None,
    reason: Annotated[str | None, typer.Option(help="for the log")] = None,
    as_json: AsJson = False,
) -> None:
    """Let a version answer from now on, for the data set that it was trained on."""
    with connected() as client:
        champion = client.promote(model, version, dataset, reason)
        print(json.dumps(champion) if as_json else ANSWERS.format(**champion))


@app.command()
def rollback(model: Model, dataset: OfDataset = None, as_json: AsJson = False) -> None:
    """Undo the last move of a champion; called again, the move before."""
    with connected() as client:
        champion = client.rollback(model, dataset)
        print(json.dumps(champion) if as_json else ANSWERS.format(**champion))


@app.command()
def card(model: Model, version: Version, as_json: AsJson = False) -> None:
    """Print a version's card, as Markdown; with --json the version."""
    with connected() as client:
        if as_json:
            print(json.dumps(client.version(model, version)))
        else:
            print(client.card(model, version), end="")


@app.command()
def download(
    model: Model,
    version: Version,
    onnx: Annotated[bool, typer.Option("--onnx/--checkpoint", help="the graph, or the weights as safetensors")] = False,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="a file; by default its name in the API")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Download a file of a version; its hash is verified."""
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
