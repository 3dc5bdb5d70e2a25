"""How accurate each network can be made: ten models of one frozen spec, then one look at the test images.

Each model is what `POST /jobs/train` of the spec in `ml/presets/records/` trains with its seed. A seed is recorded as
it ends, and one that was stopped goes on where it was. With --processes several train at once, each on a core or beside
each other on a GPU. What a model says of the test images is kept unjudged: their
labels are looked at once, when all seeds have ended, or earlier with --open.
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
WORK = Path(__file__).parents[2] / ".bench" / "records"  # seeds that have not ended
FROZEN = {"dataset", "params", "budget", "loss", "objective", "early_stopping"}  # what all seeds of a record share


@dataclass(frozen=True)
class Scale:
    """How much of everything."""

    seeds: int = 10
    epochs: int | None = None  # None: as the spec says
    images: int | None = None  # to train on, and as many to validate and to test; None: all


QUICK = Scale(seeds=2, epochs=2, images=500)


@dataclass(frozen=True)
class Record:
    """The models of one network on one split."""

    network: str
    split: str
    scale: Scale
    device: str = "cpu"
    processes: int = 1  # seeds that train at once

    @property
    def name(self) -> str:
        """What its results are kept under."""
        return f"{self.network} {self.split}"

    @property
    def command(self) -> str:
        """What trains it as this does."""
        device = "" if self.device == "cpu" else f" --device {self.device}"
        at_once = "" if self.processes == 1 else f" --processes {self.processes}"
        return f"python -m benchmarks.records {self.network} --split {self.split}{device}{at_once}"

    def spec(self, seed: int) -> TrainSpec:
        """The frozen spec with a seed."""
        body = json.loads((PRESETS / f"{self.network}.json").read_text())
        if self.scale.epochs is not None:
            body["budget"]["epochs"] = self.scale.epochs
        return TrainSpec.model_validate(body | {"split": self.split, "seed": seed})

    def seed(self, number: int) -> Seed:
        """One of its models."""
        spec = self.spec(number)
        return Seed(spec, datasets[spec.dataset].load(), self.scale.images, self.device)

    def begun(self, found: dict[str, Any] | None, anew: bool) -> dict[str, Any]:
        """The results as far as they are; of an earlier spec what it reached, where `anew`, else SystemExit."""
        spec = self.spec(0).model_dump(mode="json", include=FROZEN)
        if found is not None and found["spec"] == spec:
            return found
        if found is not None and not anew:
            raise SystemExit(f"{self.network}.json is not what was trained; --anew trains it beside what that reached")
        earlier = [] if found is None else [*found.get("earlier", []), {k: found[k] for k in ("spec", "test")}]
        return {"command": self.command, "spec": spec, "seeds": [], "test": None, "earlier": earlier}

    def run(self, found: dict[str, Any], work: Path, keep: Callable[[dict[str, Any]], None]) -> None:
        """Train the seeds that are missing, keeping the results with each."""
        missing = sorted(set(range(self.scale.seeds)) - {seed["seed"] for seed in found["seeds"]})
        for ended in self._trained(missing, work):
            found["seeds"] = sorted([*found["seeds"], ended], key=lambda seed: int(seed["seed"]))
            keep(found)
            self._place(work, ended["seed"]).unlink(missing_ok=True)

    def _trained(self, numbers: list[int], work: Path) -> Iterator[dict[str, Any]]:
        """The seeds of these numbers, as each ends."""
        if self.processes == 1:
            yield from (self.train(number, work) for number in numbers)
            return
        with ProcessPoolExecutor(self.processes, get_context("forkserver"), prepare) as pool:
            for ended in as_completed([pool.submit(self.train, number, work) for number in numbers]):
                yield ended.result() | {"at_once": self.processes}

    def train(self, number: int, work: Path) -> dict[str, Any]:
        """One of its models' record."""
        return self.seed(number).train(self._place(work, number))

    def _place(self, work: Path, number: int) -> Path:
        return work / f"{self.network}-{self.split}-{number}.safetensors"

    def open(self, found: dict[str, Any]) -> dict[str, Any]:
        """What the test images' labels say of all seeds at once; SystemExit where none has ended."""
        if not found["seeds"]:
            raise SystemExit(f"no seed of {self.name} has ended; run it without --open first")
        one = self.seed(0)
        return verdict([seed["said"] for seed in found["seeds"]], one.arrays.labels[one.data_split.test])


def run(
    record: Record, results: dict[str, Any], out: Path | None, work: Path, *, early: bool = False, anew: bool = False
) -> dict[str, Any]:
    """Bring one record as far as it goes; its results. A record whose test images were looked at is left as it is."""

    def keep(found: dict[str, Any]) -> None:
        results.update({} if out is None else read(out))  # another record may have been kept meanwhile
        results[record.name] = found
        if out is not None:
            write(out, results)
            PAGE.write_text(page(results) + "\n")

    found = record.begun(results.get(record.name), anew)
    if found["test"] is None:
        if not early:
            record.run(found, work, keep)
        keep({**found, "test": record.open(found)})
    return dict(results.get(record.name, found))


def prepare() -> None:
    """Make a process one that trains."""
    process_settings()
    warm_up()


def main() -> None:
    """Train what is missing, look at the test images once, and print, as the last line, JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.records", description=__doc__)
    parser.add_argument("network", choices=NETWORKS, nargs="?", default="perceptron")
    parser.add_argument("--split", choices=("random", "official"), default="random")
    parser.add_argument("--open", action="store_true", help="look at the test images with the seeds that have ended")
    parser.add_argument("--anew", action="store_true", help="the preset was changed: keep what the last one reached")
    parser.add_argument("--quick", action="store_true", help="within a minute, on few images; writes nothing")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="cpu", help="cpu by default")
    parser.add_argument("--processes", type=int, default=1, help="seeds that train at once, 1 by default")
    options = parser.parse_args()
    prepare()
    with TemporaryDirectory(prefix="chiffre-records-") as folder:
        scale = QUICK if options.quick else Scale()
        record = Record(options.network, options.split, scale, device_of(options.device), options.processes)
        out, work = (None, Path(folder)) if options.quick else (RECORDS, WORK)
        found = run(record, {} if out is None else read(out), out, work, early=options.open, anew=options.anew)
    row = {"work": record.name, **found["test"], "seconds": [seed["seconds"] for seed in found["seeds"]]}
    print(json.dumps({"rows": [row]}))
