"""The best trial of a search in packs, compared with one trial at a time: `python -m benchmarks.packs`.

Fourteen seeds search 200 trials of two networks, with one lane and with eight. In both searches the best learning rate
depends on the batch size, which the trials of a pack share. In the second they share the number of layers too. A
search passes if, after 50, 100 and 200 trials, the 90 % interval of the mean paired difference to one trial at a time
lies above -0.1 points of accuracy, as in `benchmarks.surrogates`.
"""

import argparse
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.results import RESULTS, taken, write
from benchmarks.surrogates import AT, LANES, QUICK_SEEDS, SEEDS, row, show
from ml.datasets import datasets
from ml.network.evaluate import Images
from ml.records import TrialState
from ml.specs import TuneSpec
from ml.training.lane import TrainingData
from ml.training.process import process_settings, warm_up
from ml.tuning.book import MemoryBook
from ml.tuning.search import Search
from ml.tuning.tune import tune

QUICK_TRIALS = 24
WIDTH = {"type": "int", "low": 16, "high": 64}
SPACE = {
    "batch_size": {"type": "int", "low": 8, "high": 100},
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
}


@dataclass(frozen=True)
class Work:
    """A search on a part of a data set; the other images up to `validation` validate."""

    name: str
    model: str
    dataset: str
    space: dict[str, Any]
    epochs: int
    train: int
    validation: int

    def data(self) -> TrainingData:
        """Return the first images of the data set, in an order that is the same for all seeds."""
        arrays = datasets[self.dataset].load()
        order = np.random.default_rng(0).permutation(len(arrays))[: self.train + self.validation]
        train, validation = np.split(order, [self.train])
        return TrainingData(Images.of(arrays.take(train)), Images.of(arrays.take(validation)))

    def spec(self, lanes: int, seed: int, trials: int) -> TuneSpec:
        """Return the specification of one search."""
        fields = {"model": self.model, "dataset": self.dataset, "search_space": self.space, "lanes": lanes}
        budget = {"trials": trials, "epochs": self.epochs}
        return TuneSpec.model_validate({**fields, "pruner": {"name": "hyperband"}, "seed": seed, "budget": budget})


LAYERS = {"type": "list", "length": {"type": "int", "low": 1, "high": 3}, "items": WIDTH}
WORKS = (
    Work("shallow, 4,000 images of MNIST", "shallow", "mnist", {**SPACE, "hidden_size": WIDTH}, 3, 4000, 5000),
    Work(
        "MLP of 1 to 3 layers, 900 images of digits", "mlp", "digits", {**SPACE, "hidden_sizes": LAYERS}, 10, 900, 897
    ),
)


def search(work: Work, data: TrainingData, lanes: int, seed: int, trials: int) -> tuple[list[float], int]:
    """Search with `lanes` lanes; return the best accuracy after each number of trials in `AT`, and the batch sizes."""
    spec = work.spec(lanes, seed, trials)
    book = MemoryBook(spec)
    tune(spec, data, book, Search(spec))
    if len(book.trials) != trials:
        raise RuntimeError(f"seed {seed} with {lanes} lanes ended after {len(book.trials)} of {trials} trials")
    found = [book.trials[number] for number in range(trials)]
    values = [one.value or 0.0 if one.state is not TrialState.FAILED else 0.0 for one in found]
    return [max(values[:after]) for after in AT], len({(one.suggestion or {})["batch_size"] for one in found})


def main() -> None:
    """Measure, and print the rows and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds of 24 trials; writes no results")
    quick = parser.parse_args().quick
    seeds, trials, rows = QUICK_SEEDS if quick else SEEDS, QUICK_TRIALS if quick else AT[-1], []
    process_settings()
    warm_up()
    for work in WORKS:
        data, alone, together = work.data(), [], []
        for seed in range(seeds):
            alone.append(search(work, data, 1, seed, trials))
            together.append(search(work, data, LANES, seed, trials))
            print(f"{work.name}, seed {seed}: {alone[-1]} with one lane, {together[-1]} with {LANES}", flush=True)
        rows.append(row(work.name, alone, together))
        show(rows[-1])
    results = {"rows": rows, "n": seeds, "lanes": LANES}
    if not quick:
        write(RESULTS / "packs.json", {**taken(), **results})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
