"""The searches of the report, and the accuracy at which each ends."""

from dataclasses import dataclass, replace
from typing import Any

from ml.specs import TuneSpec

# The ranges of the report.
SPACE: dict[str, Any] = {
    "batch_size": {"type": "int", "low": 3, "high": 100},
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
}
HIDDEN: dict[str, Any] = {"hidden_size": {"type": "int", "low": 500, "high": 2000}}
TRIALS, EPOCHS = 200, 10


@dataclass(frozen=True)
class TargetSearch:
    """A search that ends when a trial reaches a validation accuracy."""

    model: str
    name: str  # for display
    target: float
    space: dict[str, Any]
    good: dict[str, Any]  # the best parameters that the searches of the report found
    images: int | None = None  # for training, and validation images in proportion; None: all
    seconds: float | None = None  # time limit of the search
    trials: int = TRIALS

    @property
    def work(self) -> str:
        """The name of the row."""
        return f"{self.name} to {100 * self.target:.3g} %"

    def quick(self) -> "TargetSearch":
        """Return a small search of the same kind, as another row: with fewer images and a lower target."""
        return replace(self, target=0.95, images=5000)

    def body(self, seed: int) -> dict[str, Any]:
        """Return the job as the body of POST /jobs/tune."""
        return {
            "model": self.model,
            "dataset": "mnist",
            "search_space": self.space,
            "sampler": {"name": "tpe"},
            "pruner": {"name": "hyperband", "min_epochs": 0.3},
            "budget": {"trials": self.trials, "epochs": EPOCHS, "seconds": self.seconds},
            "seed": seed,
        }

    def spec(self, seed: int) -> TuneSpec:
        """Return the job as a specification."""
        return TuneSpec.model_validate(self.body(seed))

    def known(self) -> "TargetSearch":
        """Return a single trial with the good parameters, without a search."""
        return replace(self, name=f"{self.name}, parameters known,", space=self.good, trials=1)


SEARCHES = {
    "cnn": TargetSearch("cnn", "CNN", 0.989, SPACE, {"batch_size": 3, "learning_rate": 2e-4, "optimizer": "adam"}),
    "shallow": TargetSearch(
        "shallow",
        "shallow",
        0.98,
        {**SPACE, **HIDDEN},
        {"batch_size": 100, "learning_rate": 5e-4, "optimizer": "adam", "hidden_size": 1685},
    ),
}


@dataclass(frozen=True)
class Outcome:
    """The result of a search."""

    seconds: float  # until the target was first reached; in total if it was not
    reached: bool
    trials: int  # started by then
    best: float  # validation accuracy, 0..1
    how: str  # the program that ran it
    threads: int
