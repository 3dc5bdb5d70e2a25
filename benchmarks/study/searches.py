"""The searches, with the accuracies that what they would publish should reach."""

from dataclasses import dataclass, replace
from typing import Any

from ml.datasets import datasets
from ml.specs import TuneSpec
from ml.training.lane import TrainingData

# The ranges of the report.
SPACE: dict[str, Any] = {
    "batch_size": {"type": "int", "low": 3, "high": 100},
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
}
HIDDEN: dict[str, Any] = {"hidden_size": {"type": "int", "low": 500, "high": 2000}}
TRIALS, EPOCHS = 200, 10
# Of averaged weights. With 0.999 and large batches the average is still near the first weights when hyperband first
# compares trials.
DECAY = 0.99


@dataclass(frozen=True)
class TargetSearch:
    """A search whose incumbents should reach validation accuracies."""

    name: str  # for display
    model: str
    dataset: str
    space: dict[str, Any]
    targets: tuple[float, ...]  # ascending
    seeds: int  # runs of each side
    images: int | None = None  # for training and validation together; None: all
    quick: bool = False

    def work(self, target: float) -> str:
        """Return the name of the row of a target."""
        return f"{self.name} to {100 * target:.3g} %"

    def quickly(self) -> "TargetSearch":
        """Return a small search of the same kind, with fewer images and lower targets."""
        targets = tuple(target - 0.03 for target in self.targets)
        return replace(self, name=f"{self.name}, quick", targets=targets, seeds=1, images=6000, quick=True)

    def body(self, seed: int, seconds: float | None = None) -> dict[str, Any]:
        """Return the product's job, the body of POST /jobs/tune, with averaged weights like those of the best loop."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "images": self.images,
            "search_space": {**self.space, "ema_decay": DECAY},
            "sampler": {"name": "tpe"},
            "pruner": {"name": "hyperband", "min_epochs": 0.3},
            "budget": {"trials": TRIALS, "epochs": EPOCHS, "seconds": seconds},
            "seed": seed,
        }

    def spec(self) -> TuneSpec:
        """Return the specification by which the trials of all sides are built and trained again."""
        return TuneSpec.model_validate(self.body(0))


def data_of(dataset: str, images: int | None, seed: int) -> TrainingData:
    """Return the images of a cut of a data set."""
    return TrainingData.load(datasets[dataset], "random", seed).first(images)


SEARCHES = {
    "cnn": TargetSearch("CNN", "cnn", "mnist", SPACE, (0.985, 0.989), 5),
    "shallow": TargetSearch("shallow", "shallow", "mnist", SPACE | HIDDEN, (0.975, 0.98), 3),
    # No setting of Chiffre was chosen on these images.
    "digits": TargetSearch("CNN on digits", "cnn", "digits", SPACE, (0.97, 0.98), 3),
}
