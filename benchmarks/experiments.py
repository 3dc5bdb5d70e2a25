"""The duration of the report's experiments at full scale, extrapolated from a group that was run at a smaller scale.

Each measured trial gives the seconds per training image: its share of its pack's time, including validation.
`hours_at_most` is the unweighted mean of these times the images of the full experiment (trials × epochs × training
images), for one trainer. Early stopping and pruning end trials earlier, but a scaled experiment does not show when.
`hours_at_least` therefore assumes that each trial runs the fewest epochs after which its rule may end it. Neither
exceeds the job's limit in seconds, if there is one. A scaled grid keeps both ends of every parameter, so its mean
leans towards the ends. `fraction` is the share of the full experiment's images that was trained. Other work on the
machine slows all of this, so the load average is stored too.
"""

import argparse
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from api.client import Chiffre
from benchmarks.results import RESULTS, taken, write
from ml.datasets import datasets, limited, split_sizes
from ml.presets import collection
from ml.specs import TuneSpec

HOUR = 3600.0


@dataclass(frozen=True)
class MeasuredTrial:
    """The training of one measured trial."""

    images: int  # over all of its epochs
    seconds: float


@dataclass(frozen=True)
class Row:
    """One experiment: the measurement, and its extrapolation to full scale."""

    experiment: str
    n: int  # measured trials
    images: int
    seconds: float
    microseconds_per_image: float
    fraction: float
    hours_at_least: float
    hours_at_most: float


def full_images(spec: TuneSpec) -> int:
    """Return the most training images that an experiment may see; if its grid varies the epochs, their mean counts."""
    own = spec.search_space.get("epochs")
    epochs = mean(own.corners()) if own is not None else spec.budget.epochs
    return round(spec.trial_limit * epochs * _train_images(spec))


def extrapolated(experiment: str, full: TuneSpec, trials: list[MeasuredTrial]) -> Row:
    """Return the row of an experiment from its measured trials; at least one is required."""
    each = mean(trial.seconds / trial.images for trial in trials)
    images, seconds = sum(trial.images for trial in trials), sum(trial.seconds for trial in trials)
    limit = full.budget.seconds / HOUR if full.budget.seconds is not None else float("inf")
    most = each * full_images(full) / HOUR
    return Row(
        experiment,
        n=len(trials),
        images=images,
        seconds=round(seconds, 2),
        microseconds_per_image=round(1e6 * each, 1),
        fraction=images / full_images(full),
        hours_at_least=round(min(most * _least_share(full), limit), 3),
        hours_at_most=round(min(most, limit), 3),
    )


def measured(client: Chiffre, job_id: str) -> list[MeasuredTrial]:
    """Return the trials of a job that have a measurement."""
    spec = TuneSpec.model_validate(client.job(job_id)["spec"])
    images = _train_images(spec)
    trials = client.trials(job_id, limit=1000)
    return [MeasuredTrial(round(t["epochs_run"] * images), t["seconds"]) for t in trials if t["epochs_run"]]


def _least_share(spec: TuneSpec) -> float:
    """Return the smallest share of its epochs that a trial runs, unless it diverges."""
    stopped = spec.early_stopping.patience + 1 if spec.early_stopping else spec.budget.epochs
    pruned = spec.budget.epochs if spec.pruner.name == "none" else getattr(spec.pruner, "min_epochs", 1)
    return min(stopped, pruned, spec.budget.epochs) / spec.budget.epochs


def _train_images(spec: TuneSpec) -> int:
    dataset = datasets[spec.dataset.name]
    train, validation, _ = split_sizes(dataset.size, dataset.official_test, spec.split)
    return limited(train, validation, spec.images)[0]


def _rows(client: Chiffre, group: dict[str, Any]) -> list[Row]:
    full = {e.name: e.spec for e in collection(group["collection"]).experiments}
    found = {member["name"]: measured(client, member["job"]["id"]) for member in group["experiments"]}
    return [extrapolated(name, full[name], trials) for name, trials in found.items() if trials]


def main() -> None:
    """Print the extrapolation of a group, and write it with the hardware."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("group", help="id that `chiffre experiments mnist-report --scale …` printed")
    parser.add_argument("--url", help="URL of the API; by default CHIFFRE_URL")
    parser.add_argument("--out", type=Path, default=RESULTS / "experiments.json")
    options = parser.parse_args()
    with Chiffre(options.url) as client:
        group = client.group(options.group)
        rows = [asdict(row) for row in _rows(client, group)]
    for row in rows:
        print("  ".join(f"{name} {value:g}" if not isinstance(value, str) else value for name, value in row.items()))
    write(
        options.out,
        {**taken(), "load_average": os.getloadavg(), "scale": group["scale"], "state": group["state"], "rows": rows},
    )
    print(json.dumps({"rows": rows}))


if __name__ == "__main__":
    main()
