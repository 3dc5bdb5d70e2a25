"""What is searched, as the report did it, and how far until a search counts as done."""

from dataclasses import dataclass, replace
from typing import Any

from ml.specs import TuneSpec

# The report's own ranges.
SPACE: dict[str, Any] = {
    "batch_size": {"type": "int", "low": 3, "high": 100},
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
}
HIDDEN: dict[str, Any] = {"hidden_size": {"type": "int", "low": 500, "high": 2000}}
TRIALS, EPOCHS = 200, 10


@dataclass(frozen=True)
class TargetSearch:
    """A search that is over once a trial has reached a validation accuracy."""

    model: str
    name: str  # as people write it
    target: float
    space: dict[str, Any]
    good: dict[str, Any]  # the best parameters that the report's own searches found
    images: int | None = None  # to train on, and validation in proportion; all where None
    seconds: float | None = None  # to search for, at most
    trials: int = TRIALS

    @property
    def work(self) -> str:
        """The row's name."""
        return f"{self.name} to {100 * self.target:.3g} %"

    def quick(self) -> "TargetSearch":
        """A small search of the same kind, another row: fewer images and less to reach."""
        return replace(self, target=0.95, images=5000)

    def body(self, seed: int) -> dict[str, Any]:
        """The job, as POST /jobs/tune takes it."""
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
        """The job, as ml takes it."""
        return TuneSpec.model_validate(self.body(seed))

    def known(self) -> "TargetSearch":
        """One trial with the good parameters and no search."""
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
    """How a search went."""

    seconds: float  # to the first measurement of the target, else in all
    reached: bool
    trials: int  # begun by then
    best: float  # validation accuracy, 0..1
    how: str  # what ran it
    threads: int
