"""Specifications of jobs for the tests of faults."""

from random import Random
from typing import Any

SPACE: dict[str, Any] = {
    "hidden_size": 32,
    "batch_size": 16,  # about 20 ms per epoch
    "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
}


def steady(trials: int = 4, epochs: int = 30, lanes: int | None = 2, **fields: Any) -> dict[str, Any]:
    """Return the specification of a job that trains for some seconds, and runs all trials to their end."""
    budget = {"trials": trials, "epochs": epochs}
    common = {"model": "shallow", "dataset": "digits", "sampler": {"name": "random"}, "pruner": {"name": "none"}}
    return {**common, "search_space": SPACE, "budget": budget, "lanes": lanes, **fields}


def quick(**fields: Any) -> dict[str, Any]:
    """Return the specification of a job that ends at once."""
    return {"model": "perceptron", "dataset": "digits", "budget": {"trials": 1, "epochs": 1}, **fields}


def moment(seed: int, last: int) -> int:
    """Return a number from 1 to `last` that depends only on the seed; tests use it as the moment of a fault."""
    return Random(seed).randint(1, last)
