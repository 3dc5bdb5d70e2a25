"""The key of a pack's first trial, drawn from the results of earlier keys.

All later trials of a pack adopt its key. If each of them counted as a trial that chose this key, the search would stay
near the first keys that it met. In a search of 200 trials of the CNN no batch size was ever below 27, although smaller
ones do better. So keys are drawn from a study of packs, which has the best trial of each key.
"""

from collections.abc import Sequence
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

FOLLOWS = "chiffre:follows"  # a system attribute of trials that adopted the key of their pack


def study_of_keys(
    trials: Sequence[FrozenTrial],
    names: Sequence[str],
    direction: StudyDirection,
    sampler: optuna.samplers.BaseSampler,
) -> optuna.Study | None:
    """Return a study with one trial for each pack.

    Args:
        trials: of the job's study.
        names: decide the key of a trial.
        direction: of the job's study.
        sampler: of the new study.

    Returns:
        The study; None as long as no trial has adopted the key of another.
    """
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
    """Return a key that sorts trials as TPE ranks them, the best last.

    Completed trials are sorted by value. The others come before them, sorted by step and then by value.
    """
    step = trial.last_step or 0
    complete = trial.state == TrialState.COMPLETE
    value = float(trial.value or 0.0) if complete else trial.intermediate_values.get(step, 0.0)
    return complete, 0 if complete else step, value if direction == StudyDirection.MAXIMIZE else -value
