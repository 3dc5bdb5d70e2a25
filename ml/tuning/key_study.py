"""The key of a pack's first trial, drawn from what keys before it came to.

All later trials of a pack take its key over. Counted as trials that found that key good, they would hold a search near
the first keys that it met: in a search of 200 trials of the CNN no batch was ever below 27, where smaller ones do
better. So keys are drawn from a study of packs: of each, the best trial with its key.
"""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

FOLLOWS = "chiffre:follows"  # noted of a trial that took over the key of its pack


def study_of_keys(
    trials: Sequence[FrozenTrial],
    names: Sequence[str],
    direction: StudyDirection,
    sampler: optuna.samplers.BaseSampler,
) -> optuna.Study | None:
    """A study with one trial of each pack, where `names` decide the key; None where no trial has followed another."""
    drawn = [trial for trial in trials if trial.params and trial.state != TrialState.FAIL]
    if not any(FOLLOWS in trial.system_attrs for trial in drawn):
        return None

    def key(trial: FrozenTrial) -> tuple[Any, ...]:
        return tuple(trial.params.get(name) for name in names)

    ranked = sorted(drawn, key=lambda trial: standing(trial, direction))
    best = {key(trial): trial for trial in ranked}
    study = optuna.create_study(direction=direction, sampler=sampler)
    study.add_trials([best[key(trial)] for trial in drawn if FOLLOWS not in trial.system_attrs])
    return study


def standing(trial: FrozenTrial, direction: StudyDirection) -> tuple[bool, int, float]:
    """How TPE ranks trials, the best last: the completed by value; before them the others, by step, then by value."""
    step = trial.last_step or 0
    complete = trial.state == TrialState.COMPLETE
    value = float(trial.value or 0.0) if complete else trial.intermediate_values.get(step, 0.0)
    return complete, 0 if complete else step, value if direction == StudyDirection.MAXIMIZE else -value
