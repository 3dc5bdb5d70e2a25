"""The best trial of a search in packs, compared with one trial at a time: `python -m benchmarks.packs`.

Ten seeds search 200 trials of a shallow network on 4,000 images of MNIST, once with one lane and once with eight. In
this search the best learning rate depends on the batch size. The searches in packs pass if their mean is not below the
95 % interval (Student's t) of the mean of those with one lane.
"""

import argparse
import json
from math import sqrt
from statistics import mean, median, stdev
from typing import Any

import numpy as np
from scipy.stats import t as student_t

from benchmarks.results import RESULTS, taken, write
from ml.datasets import datasets
from ml.specs import TuneSpec
from ml.training.lane import TrainingData
from ml.training.process import process_settings, warm_up
from ml.tuning.book import MemoryBook
from ml.tuning.search import Search
from ml.tuning.tune import tune

SPACE = {
    "batch_size": {"type": "int", "low": 8, "high": 100},
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    "hidden_size": {"type": "int", "low": 16, "high": 64},
}
LANES = 8
SEEDS, TRIALS, EPOCHS, IMAGES = 10, 200, 3, 4000
QUICK_SEEDS, QUICK_TRIALS = 2, 12


def best_of(lanes: int, seed: int, trials: int, data: TrainingData) -> float:
    """Run a search with `lanes` lanes, and return the best validation accuracy, 0..1."""
    body = {"model": "shallow", "lanes": lanes, "seed": seed, "search_space": SPACE, "pruner": {"name": "hyperband"}}
    spec = TuneSpec.model_validate({**body, "budget": {"trials": trials, "epochs": EPOCHS}})
    book = MemoryBook(spec)
    tune(spec, data, book, Search(spec))
    if len(book.trials) != trials or book.winner is None or book.winner.value is None:
        raise RuntimeError(f"seed {seed} with {lanes} lanes ended after {len(book.trials)} of {trials} trials")
    return book.winner.value


def row(alone: list[float], together: list[float]) -> dict[str, Any]:
    """Compare the best results of searches with one lane and with several, seed by seed."""
    half = float(student_t.ppf(0.975, len(alone) - 1)) * stdev(alone) / sqrt(len(alone))
    return {
        "work": f"shallow, {LANES} lanes against 1",
        "n": len(alone),
        "median_alone": median(alone),
        "median_together": median(together),
        "mean_alone": mean(alone),
        "mean_together": mean(together),
        "interval_alone": [mean(alone) - half, mean(alone) + half],
        "passed": mean(together) >= mean(alone) - half,
    }


def main() -> None:
    """Measure, and print both sides and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.packs", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds of twelve trials; writes no results")
    quick = parser.parse_args().quick
    seeds, trials = (QUICK_SEEDS, QUICK_TRIALS) if quick else (SEEDS, TRIALS)
    process_settings()
    warm_up()
    mnist = datasets["mnist"].load()
    data = TrainingData.of(mnist.take(np.arange(IMAGES)), None, "random", 0)
    alone, together = [], []
    for seed in range(seeds):
        alone.append(best_of(1, seed, trials, data))
        together.append(best_of(LANES, seed, trials, data))
        print(f"seed {seed}: {alone[-1]:.4f} with one lane, {together[-1]:.4f} with {LANES}", flush=True)
    results = {"rows": [row(alone, together)], "n": seeds, "trials": trials}
    if not quick:
        write(RESULTS / "packs.json", {**taken(), **results})
    print(json.dumps(results))


if __name__ == "__main__":
    main()
