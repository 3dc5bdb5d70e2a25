"""The quality of packs: a search with eight trials at a time finds what a search with one at a time finds."""

from math import sqrt
from statistics import mean, stdev

import numpy as np
import pytest

from ml.datasets import Arrays
from ml.specs import TuneSpec
from ml.training.lane import TrainingData
from ml.tuning.book import MemoryBook
from ml.tuning.search import Search
from ml.tuning.tune import tune

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

SEEDS = range(10)
STUDENT_T = 2.262  # 97.5 % of Student's t with nine degrees of freedom


def _best(lanes: int, seed: int, data: TrainingData) -> float:
    """Return the best validation accuracy of 200 trials in which batch size and learning rate depend on each other."""
    space = {
        "batch_size": {"type": "int", "low": 8, "high": 100},
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
        "hidden_size": {"type": "int", "low": 16, "high": 64},
    }
    body = {"model": "shallow", "lanes": lanes, "seed": seed, "search_space": space, "pruner": {"name": "hyperband"}}
    spec = TuneSpec.model_validate({**body, "budget": {"trials": 200, "epochs": 3}})
    book = MemoryBook(spec)
    tune(spec, data, book, Search(spec))
    assert len(book.trials) == 200
    assert book.winner is not None
    assert book.winner.value is not None
    return book.winner.value


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_packs_search_as_well_as_one_trial_at_a_time(mnist: Arrays) -> None:
    """Over ten seeds, the best of 200 trials in packs of eight is not below the interval of one-at-a-time TPE."""
    data = TrainingData.of(mnist.take(np.arange(4000)), None, "random", 0)
    alone, together = ([_best(lanes, seed, data) for seed in SEEDS] for lanes in (1, 8))
    lower = mean(alone) - STUDENT_T * stdev(alone) / sqrt(len(SEEDS))

    assert mean(together) >= lower
