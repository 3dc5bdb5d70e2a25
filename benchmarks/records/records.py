"""The best accuracy of each network: ten models of one frozen spec, evaluated on the test images once.

Each model is trained as `POST /jobs/train` trains the spec in `ml/presets/records/` with its seed. A seed is recorded
when it ends, and an interrupted seed resumes. With --processes, several seeds train at the same time, each on a core or
all on one GPU. The predictions for the test images are stored first. The test labels are used once, when all seeds
have ended, or earlier with --open.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.records.page import page
from benchmarks.records.seeds import Seed
from benchmarks.records.verdict import verdict
from benchmarks.results import RESULTS, read, write
from ml.datasets import datasets
from ml.specs import TrainSpec
from ml.training.process import device_of, process_settings, warm_up

PRESETS = Path(__file__).parents[2] / "ml" / "presets" / "records"
NETWORKS = ("perceptron", "shallow", "mlp", "cnn")
RECORDS = RESULTS / "records.json"
PAGE = Path(__file__).parents[1] / "records.md"
WORK = Path(__file__).parents[2] / ".bench" / "records"  # checkpoints of seeds that have not ended
FROZEN = {
    "dataset",
    "params",
    "budget",
    "loss",
    "objective",
    "early_stopping",
}  # fields that all seeds of a record share


@dataclass(frozen=True)
class Scale:
    """The size of a record: full or quick."""

    seeds: int = 10
    epochs: int | None = None  # None: as in the spec
    images: int | None = None  # for training, and as many for validation and test; None: all


QUICK = Scale(seeds=2, epochs=2, images=500)


@dataclass(frozen=True)
class Record:
    """The models of one network on one split."""

    network: str
    split: str
    scale: Scale
    device: str = "cpu"
    processes: int = 1  # seeds that train at the same time

    @property
    def name(self) -> str:
        """The key of its results."""
        return f"{self.network} {self.split}"

    @property
    def command(self) -> str:
        """The command that trains this record."""
        device = "" if self.device == "cpu" else f" --device {self.device}"
        at_once = "" if self.processes == 1 else f" --processes {self.processes}"
        return f"python -m benchmarks.records {self.network} --split {self.split}{device}{at_once}"

    def spec(self, seed: int) -> TrainSpec:
        """Return the frozen spec with a seed."""
        body = json.loads((PRESETS / f"{self.network}.json").read_text())
        if self.scale.epochs is not None:
            body["budget"]["epochs"] = self.scale.epochs
        return TrainSpec.model_validate(body | {"split": self.split, "seed": seed})

    def seed(self, number: int) -> Seed:
        """Return one of its models."""
        spec = self.spec(number)
        return Seed(spec, datasets[spec.dataset.name].load(), self.scale.images, self.device)

    def started(self, found: dict[str, Any] | None, anew: bool) -> dict[str, Any]:
        """Return the results so far.

        Args:
            found: The stored results, if there are any.
            anew: Keep the results of a changed spec as earlier ones, and start again.

        Raises:
            SystemExit: if the spec was changed and `anew` is false.
        """
        spec = self.spec(0).model_dump(mode="json", include=FROZEN)
        if found is not None and found["spec"] == spec:
            return found
        if found is not None and not anew:
            raise SystemExit(
                f"{self.network}.json has changed since it was trained; "
                "use --anew to train it again and keep the earlier results"
            )
        earlier = [] if found is None else [*found.get("earlier", []), {k: found[k] for k in ("spec", "test")}]
        return {"command": self.command, "spec": spec, "seeds": [], "test": None, "earlier": earlier}

    def run(self, found: dict[str, Any], work: Path, keep: Callable[[dict[str, Any]], None]) -> None:
        """Train the missing seeds, and store the results after each."""
        missing = sorted(set(range(self.scale.seeds)) - {seed["seed"] for seed in found["seeds"]})
        for ended in self._trained(missing, work):
            found["seeds"] = sorted([*found["seeds"], ended], key=lambda seed: int(seed["seed"]))
            keep(found)
            self._place(work, ended["seed"]).unlink(missing_ok=True)

    def _trained(self, numbers: list[int], work: Path) -> Iterator[dict[str, Any]]:
        """Yield the record of each of these seeds when it ends."""
        if self.processes == 1:
            yield from (self.train(number, work) for number in numbers)
            return
        with ProcessPoolExecutor(self.processes, get_context("forkserver"), prepare) as pool:
            for ended in as_completed([pool.submit(self.train, number, work) for number in numbers]):
                yield ended.result() | {"at_once": self.processes}

    def train(self, number: int, work: Path) -> dict[str, Any]:
        """Train one seed, and return its record."""
        return self.seed(number).train(self._place(work, number))

    def _place(self, work: Path, number: int) -> Path:
        return work / f"{self.network}-{self.split}-{number}.safetensors"

    def open(self, found: dict[str, Any]) -> dict[str, Any]:
        """Evaluate all seeds on the test images.

        Raises:
            SystemExit: if no seed has ended.
        """
        if not found["seeds"]:
            raise SystemExit(f"no seed of {self.name} has ended; run it without --open first")
        one = self.seed(0)
        return verdict([seed["said"] for seed in found["seeds"]], one.arrays.labels[one.data_split.test])


def run(
    record: Record, results: dict[str, Any], out: Path | None, work: Path, *, early: bool = False, anew: bool = False
) -> dict[str, Any]:
    """Train and evaluate one record, and return its results. An evaluated record is not changed.

    Args:
        record: The record.
        results: All results, which are updated.
        out: The file for the results; None: write nothing.
        work: The folder for checkpoints.
        early: Evaluate the seeds that have ended, without training the others.
        anew: The spec has changed: keep the earlier results and start again.
    """

    def keep(found: dict[str, Any]) -> None:
        results.update({} if out is None else read(out))  # another record may have been stored meanwhile
        results[record.name] = found
        if out is not None:
            write(out, results)
            PAGE.write_text(page(results) + "\n")

    found = record.started(results.get(record.name), anew)
    if found["test"] is None:
        if not early:
            record.run(found, work, keep)
        keep({**found, "test": record.open(found)})
    return dict(results.get(record.name, found))


def prepare() -> None:
    """Set up this process for training."""
    process_settings()
    warm_up()


def main() -> None:
    """Train the missing seeds, evaluate them once, and print JSON as the last line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("network", choices=NETWORKS, nargs="?", default="perceptron")
    parser.add_argument("--split", choices=("random", "official"), default="random")
    parser.add_argument("--open", action="store_true", help="evaluate the seeds that have ended on the test images")
    parser.add_argument(
        "--anew", action="store_true", help="train a changed preset and keep the results of the earlier one"
    )
    parser.add_argument("--quick", action="store_true", help="run within a minute on few images; writes no results")
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="cpu", help="device to train on; by default cpu"
    )
    parser.add_argument("--processes", type=int, default=1, help="seeds that train at the same time; by default 1")
    options = parser.parse_args()
    prepare()
    with TemporaryDirectory(prefix="chiffre-records-") as folder:
        scale = QUICK if options.quick else Scale()
        record = Record(options.network, options.split, scale, device_of(options.device), options.processes)
        out, work = (None, Path(folder)) if options.quick else (RECORDS, WORK)
        found = run(record, {} if out is None else read(out), out, work, early=options.open, anew=options.anew)
    row = {"work": record.name, **found["test"], "seconds": [seed["seconds"] for seed in found["seeds"]]}
    print(json.dumps({"rows": [row]}))
