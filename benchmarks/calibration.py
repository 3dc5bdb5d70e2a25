"""The calibration of answers: `python -m benchmarks.calibration [--quick] [--fonts FOLDER …]`.

It measures three things for each network: the expected calibration error on the test images before and after
temperature scaling, the share of test images it abstains from, and the share of other images it rejects. The baseline
is the largest softmax alone, with a limit that abstains from as many validation images.
"""

import argparse
import json
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import numpy as np

from benchmarks.images.negatives import fonts_in, kinds
from benchmarks.results import RESULTS, taken, write
from ml.datasets import datasets
from ml.network.evaluate import Images
from ml.prediction.calibration import Calibration
from ml.prediction.calibration_fit import judged, limit
from ml.prediction.novelty import Novelty, fit_novelty
from ml.prediction.predictor import softmax
from ml.records import Checkpoint, Event
from ml.specs import TrainSpec
from ml.training.lane import TrainingData
from ml.training.process import process_settings, warm_up
from ml.tuning.book import MemoryBook
from ml.tuning.search import Search
from ml.tuning.tune import tune
from worker.publication.work import Candidate
from worker.training.training_data import test_images

CASES: dict[str, dict[str, Any]] = {
    "CNN": {"model": "cnn", "params": {"batch_size": 32, "learning_rate": 1e-3}},
    "shallow": {"model": "shallow", "params": {"batch_size": 100, "learning_rate": 1e-3, "hidden_size": 512}},
}
EPOCHS, SEEDS, EACH = 10, 3, 1000  # EACH: images of every kind
QUICK_EPOCHS, QUICK_EACH = 1, 100
SYSTEM_FONTS = Path("/usr/share/fonts")

Kinds = list[tuple[str, str, np.ndarray]]  # group, name, images
Run = dict[str, Any]


def others(test: Images, fonts: list[Path], each: int) -> Kinds:
    """Return images of every kind, without kinds whose characters no font has."""
    rng = np.random.default_rng(0)
    made = [(group, name, kind(rng, test.images.numpy(), fonts, each)) for group, name, kind in kinds()]
    return [(group, name, images) for group, name, images in made if len(images)]


def trained(case: dict[str, Any], epochs: int, seed: int, data: TrainingData) -> Checkpoint:
    """Train a network as a job does, and return its best checkpoint."""
    spec = TrainSpec.model_validate(
        {"model": case["model"], "params": {**case["params"], "epochs": epochs}, "dataset": "mnist", "seed": seed}
    ).as_tune()
    book = MemoryBook(spec, _silent)
    tune(spec, data, book, Search(spec))
    if book.winner is None or book.winner.checkpoint is None:
        raise SystemExit("no epoch ended with a finite loss")
    return book.winner.checkpoint


def _silent(event: Event) -> None:
    """Ignore an event of the search."""


class Judge:
    """A network that abstains as it does when served, and the baseline that uses only its largest softmax."""

    def __init__(self, checkpoint: Checkpoint, novelty: Novelty, validation: Images) -> None:
        self.candidate = Candidate.of(checkpoint, novelty)
        self.calibration = self.candidate.calibration(validation)
        outputs, _ = self.answers(validation.images.numpy())
        self.plain_limit = limit(-softmax(outputs).max(1), self.calibration.abstained)
        self.latency = self.candidate.latency(validation.images)

    def answers(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return outputs and novelty of uint8 images."""
        return self.candidate.predictor.run(images.astype(np.float32) / 255)

    def rejected(self, outputs: np.ndarray, novelty: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Return whether each image is rejected, bool [n]: by the network, and by the softmax baseline."""
        reasons = self.calibration.reasons(self.calibration.probabilities(outputs), novelty)
        return np.array([reason is not None for reason in reasons]), -softmax(outputs).max(1) > self.plain_limit


def test_run(work: str, judge: Judge, test: Images) -> Run:
    """Measure calibration, accuracy and abstention on the test images."""
    labels = test.labels.numpy()
    outputs, novelty = judge.answers(test.images.numpy())
    ours, plain = judge.rejected(outputs, novelty)
    found: Calibration = judged(judge.calibration, outputs, novelty, labels)
    right = outputs.argmax(1) == labels
    return {
        "work": f"{work}, test images",
        "n": len(labels),
        "temperature": found.temperature,
        "ece_uncalibrated": found.test_ece_uncalibrated,
        "ece": found.test_ece,
        "abstained": found.test_abstained,
        "abstained_softmax": float(plain.mean()),
        "accuracy": float(right.mean()),
        "accuracy_answered": float(right[~ours].mean()),
        "accuracy_answered_softmax": float(right[~plain].mean()),
        "latency_us": 1e6 * judge.latency,
    }


def kind_runs(work: str, judge: Judge, images: Kinds) -> list[Run]:
    """Measure the share of rejected images of every other kind."""
    runs = []
    for group, name, drawn in images:
        ours, plain = judge.rejected(*judge.answers(drawn))
        shares = {"rejected": float(ours.mean()), "rejected_softmax": float(plain.mean())}
        runs.append({"work": f"{work}, {name}", "group": group, "n": len(drawn), **shares})
    return runs


def rows_of(runs: list[Run]) -> list[Run]:
    """Return a row for each work, with medians over the seeds."""
    rows = []
    for work in dict.fromkeys(run["work"] for run in runs):
        same = [run for run in runs if run["work"] == work]
        measured = [name for name, value in same[0].items() if isinstance(value, float)]
        rows.append({**same[0], **{name: median(run[name] for run in same) for name in measured}, "seeds": len(same)})
    return rows


def show(row: Run) -> None:
    """Print a row."""
    if "ece" in row:
        errors = f"ECE {row['ece_uncalibrated']:.4f} → {row['ece']:.4f}, temperature {row['temperature']:.2f}"
        accuracies = f"right {row['accuracy']:.2%}, of the answered {row['accuracy_answered']:.2%}"
        print(f"{row['work']:34} {errors}, abstained {row['abstained']:.2%}, {accuracies}, ", end="")
        print(f"{row['latency_us']:.0f} µs an image, n = {row['n']}")
    else:
        shares = f"rejected {row['rejected']:7.1%}   by softmax {row['rejected_softmax']:7.1%}"
        print(f"{row['work']:34} {shares}   n = {row['n']}   {row['group']}")


def measure(seeds: int, epochs: int, each: int, fonts: list[Path]) -> tuple[list[Run], list[float]]:
    """Return all runs, and the CPU seconds of each fit of the novelty detector."""
    process_settings()
    warm_up()
    test, dataset = test_images(datasets["mnist"], "random"), datasets["mnist"]
    images, runs, seconds = others(test, fonts, each), list[Run](), []
    for seed in range(seeds):
        data = TrainingData.load(dataset, "random", seed)
        started = process_time()
        novelty = fit_novelty(data.train.images.numpy(), dataset.classes, seed)
        seconds.append(process_time() - started)
        for work, case in CASES.items():
            judge = Judge(trained(case, epochs, seed, data), novelty, data.validation)
            runs += [test_run(work, judge, test), *kind_runs(work, judge, images)]
    return runs, seconds


def main() -> None:
    """Measure, print a table and, as the last line, JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch and few images; writes no results")
    parser.add_argument(
        "--fonts", type=Path, nargs="+", default=[SYSTEM_FONTS], help="folders of fonts for the images of letters"
    )
    parser.add_argument("--out", type=Path, default=RESULTS / "calibration.json", help="file for the results")
    options = parser.parse_args()
    fonts = fonts_in(options.fonts)
    if not fonts:
        print(
            "No font found, so the rows of letters are missing. Install fonts (Debian: fonts-open-sans) or use --fonts."
        )
    size = (1, QUICK_EPOCHS, QUICK_EACH) if options.quick else (SEEDS, EPOCHS, EACH)
    runs, seconds = measure(*size, fonts)
    rows = rows_of(runs)
    for row in rows:
        show(row)
    families = sorted({path.stem.split("-")[0] for path in fonts})
    print(
        f"Fitting a novelty detector took {median(seconds):.1f} s of one core. Fonts: {', '.join(families) or 'none'}"
    )
    if not options.quick:
        found = {"rows": rows, "runs": runs, "novelty_fit_seconds": seconds, "fonts": families}
        write(options.out, {**taken(), "threads": 1, **found})
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
