"""A search whose trials get their results from a formula instead of training, for the tests of analyses."""

from typing import Any

import numpy as np

from ml.analysis.observations import Observation
from ml.records import TrialRecord, TrialState
from ml.specs import TuneSpec
from ml.tuning.search import Search

SPACE = {
    "batch_size": {"type": "int", "low": 8, "high": 128},
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    "hidden_size": {"type": "int", "low": 16, "high": 256},
}
ENDS = (TrialState.COMPLETED, TrialState.COMPLETED, TrialState.STOPPED_EARLY, TrialState.PRUNED)


def searched(trials: int, space: dict[str, Any] | None = None, sampler: str = "random") -> Search:
    """Return a search for a shallow network on the digits, without trials."""
    fields = {"search_space": space or SPACE, "sampler": {"name": sampler}, "budget": {"trials": max(trials, 1)}}
    return Search(TuneSpec.model_validate({"model": "shallow", "dataset": "digits", **fields}))


def reached(search: Search, trials: int) -> list[Observation]:
    """Run this many trials of a search by formula, and return them.

    The effect of the learning rate depends on the optimizer. The time depends on the width and the batch size.
    """
    draws = np.random.RandomState(0)
    found = []
    for number in range(trials):
        params, record = search.ask(number)
        values = params.model_dump()
        slope = 0.03 if values["optimizer"] == "adam" else -0.03
        accuracy = 0.9 + slope * np.log10(values["learning_rate"] / 3e-3) + 0.005 * draws.randn()
        state = ENDS[number % len(ENDS)]
        value = float(np.clip(accuracy, 0, 1))
        record = TrialRecord(number, state, record.suggestion, record.attrs, {10: value - 0.1, 20: value}, value)
        search.apply(record)
        seconds = values["hidden_size"] / values["batch_size"] + draws.rand()
        size = values["hidden_size"]
        published = state != TrialState.PRUNED and number % 3 == 0
        sizes = {"flops": 148 * size, "weights": 75 * size + 10, "latency_seconds": 1e-7 * size if published else None}
        instants = {"began": 1e9 + number, "ended": 1e9 + number + seconds}
        found.append(Observation(number, state, values, 1 - value, value, float(seconds), 2.0, **sizes, **instants))
    return found
