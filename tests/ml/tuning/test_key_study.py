"""The keys of packs by rules 1: drawn from the results of earlier keys, each of which counts once."""

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from ml import records
from ml.records import TrialRecord
from ml.specs import TuneSpec
from ml.tuning.key_study import FOLLOWS, study_of_keys
from ml.tuning.search import Search

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

LANES = 12
SPACE = {
    "batch_size": {"type": "int", "low": 3, "high": 100},
    "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
}


def _spec(seed: int) -> TuneSpec:
    body = {"model": "shallow", "dataset": "digits", "search_space": SPACE, "sampler": {"name": "tpe"}, "seed": seed}
    return TuneSpec.model_validate(body).under(1)


def _searched(seed: int, batches: list[int], value: Any) -> Search:
    """Return a search after packs with these batch sizes, whose trials completed with the values of `value`."""
    search = Search(_spec(seed))
    for pack, batch in enumerate(batches):
        like: dict[str, Any] = {}
        for number in range(pack * LANES, (pack + 1) * LANES):
            drawn = search.ask(number, like, None if like else {"batch_size": batch})[1]
            like = like or drawn.suggestion or {}
            state, reached = records.TrialState.COMPLETED, value(batch)
            search.apply(TrialRecord(number, state, drawn.suggestion, drawn.attrs, {10: reached}, reached))
    return search


def _next(search: Search, packs: int) -> int:
    return search.ask(packs * LANES)[0].batch_size


def test_the_key_after_two_packs_is_drawn_from_the_whole_range() -> None:
    """Twenty-four trials of two batch sizes are only two observed keys."""
    drawn = [_next(_searched(seed, [44, 50], lambda _: 0.9), 2) for seed in range(20)]

    assert sum(batch < 25 for batch in drawn) >= 2
    assert sum(batch > 70 for batch in drawn) >= 3


@pytest.mark.long
def test_the_next_key_is_near_successful_keys() -> None:
    """After packs of eight batch sizes, of which small ones did better, most of the next keys are small."""
    seen = [95, 5, 60, 12, 80, 30, 45, 70]
    drawn = [_next(_searched(seed, seen, lambda batch: 1 - batch / 200), 8) for seed in range(20)]

    assert np.median(drawn) < 25


def _trial(batch: int, state: TrialState, step: int, value: float, *, follows: bool) -> FrozenTrial:
    return create_trial(
        state=state,
        value=value if state == TrialState.COMPLETE else None,
        params={"batch_size": batch},
        distributions={"batch_size": IntDistribution(3, 100)},
        intermediate_values={step: value},
        system_attrs={FOLLOWS: True} if follows else {},
    )


@pytest.mark.parametrize("direction", [StudyDirection.MAXIMIZE, StudyDirection.MINIMIZE])
def test_a_pack_counts_as_its_best_trial(direction: StudyDirection) -> None:
    """A completed trial is better than a pruned one; among equal states, more steps count first, then better values."""
    better, worse = (0.9, 0.5) if direction == StudyDirection.MAXIMIZE else (0.5, 0.9)
    pruned, complete = TrialState.PRUNED, TrialState.COMPLETE
    trials = [
        _trial(8, pruned, 3, better, follows=False),
        _trial(8, complete, 10, worse, follows=True),
        _trial(8, complete, 10, better, follows=True),
        _trial(16, pruned, 3, better, follows=False),
        _trial(16, pruned, 9, worse, follows=True),
        _trial(16, TrialState.RUNNING, 9, better, follows=True),
        _trial(32, TrialState.FAIL, 1, better, follows=False),
    ]
    study = study_of_keys(trials, ["batch_size"], direction, optuna.samplers.RandomSampler())
    assert study is not None
    found = [(trial.params["batch_size"], trial.state, trial.last_step, trial.value) for trial in study.trials]

    assert found == [(8, complete, 10, better), (16, TrialState.RUNNING, 9, None)]


def test_trials_that_share_no_key_are_drawn_by_optuna_alone() -> None:
    """If no trial adopted another's key, there is no study of keys."""
    trials = [_trial(8, TrialState.COMPLETE, 3, 0.5, follows=False)]
    found = study_of_keys(trials, ["batch_size"], StudyDirection.MAXIMIZE, optuna.samplers.RandomSampler())

    assert found is None
