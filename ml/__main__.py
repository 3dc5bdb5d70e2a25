"""`python -m ml`: tune a network with no service running."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from pydantic import ValidationError

from ml.artifacts import save_checkpoint
from ml.datasets import datasets
from ml.errors import ChiffreError
from ml.images.report_pickle import read_report_pickle
from ml.records import Event, Finished, Measured, Started
from ml.specs import TrainSpec, TuneSpec
from ml.training.lane import TrainingData
from ml.training.process import device_of, process_settings
from ml.tuning.book import MemoryBook
from ml.tuning.search import Search
from ml.tuning.tune import tune

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

SpecFile = Annotated[
    Path, typer.Argument(help="a JSON file with the body of POST /jobs/tune or /jobs/train", exists=True)
]
DataFile = Annotated[
    Path | None, typer.Option("--data", help="train on the report's mnist.pkl.gz instead of the data set", exists=True)
]
OutFile = Annotated[Path, typer.Option("--out", help="the file for the best trial's checkpoint")]
Device = Annotated[Literal["auto", "cpu", "cuda"], typer.Option(help="the device that trials train on")]


@app.command("tune")
def tune_file(
    spec: SpecFile, data: DataFile = None, out: OutFile = Path("best.safetensors"), device: Device = "auto"
) -> None:
    """Search the hyper-parameters of a network."""
    _run(_read(TuneSpec, spec), data, out, device)


@app.command("train")
def train_file(
    spec: SpecFile, data: DataFile = None, out: OutFile = Path("best.safetensors"), device: Device = "auto"
) -> None:
    """Train a network with fixed hyper-parameters."""
    _run(_read(TrainSpec, spec).as_tune(), data, out, device)


@app.command()
def sha256(name: Annotated[str, typer.Argument(help="a built-in data set")]) -> None:
    """Print the SHA-256 of a data set's images and labels, for its entry in `ml/datasets.py`."""
    try:
        print(datasets[name].read().sha256())
    except ChiffreError as error:
        _fail(error)


def _run(spec: TuneSpec, data: Path | None, out: Path, device: str) -> None:
    process_settings()
    if spec.init_from is not None:
        _fail("init_from needs a published version; post the job to the service that published it")
    try:
        arrays = read_report_pickle(data) if data else datasets[spec.dataset.name].load()
        book = MemoryBook(spec, _print_event)
        whole = TrainingData.of(arrays, spec.dataset.official_test, spec.split, spec.seed)
        tune(spec, whole.first(spec.images).to(device_of(device)), book, Search(spec))
    except ChiffreError as error:
        _fail(error)
    if book.winner is None or book.winner.checkpoint is None:
        _fail("no trial finished an epoch with a finite loss; lower the learning rate or allow more seconds")
    save_checkpoint(out, book.winner.checkpoint)
    print(f"best: trial {book.winner.number}; its weights are in {out}")


def _print_event(event: Event) -> None:
    match event:
        case Started():
            print(f"trial {event.number}: {json.dumps(event.params)}")
        case Measured(measurement=m):
            print(
                f"trial {event.number} epoch {m.epoch:g}: train loss {m.train_loss}, validation loss {m.val_loss}, "
                f"accuracy {m.val_accuracy}, {m.seconds:.1f} s"
            )
        case Finished():
            print(f"trial {event.number}: {event.state} ({event.reason})")


def _read(kind: Any, path: Path) -> Any:
    try:
        return kind.model_validate_json(path.read_text())
    except (ChiffreError, ValidationError, UnicodeDecodeError) as error:
        _fail(error)


def _fail(error: object) -> NoReturn:
    typer.echo(f"python -m ml: {error}", err=True)
    raise typer.Exit(1)


if __name__ == "__main__":
    app(prog_name="python -m ml")
