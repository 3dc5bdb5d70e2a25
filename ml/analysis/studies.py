"""A job's Optuna study for analyses: with each trial's times and results as attributes."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from ml.analysis.observations import Observation
from ml.tuning.search import Search

COST = ("seconds", "flops", "weights", "latency_seconds")
REACHED = ("val_accuracy", "val_loss", *COST)
OUT_OF_TIME = "out_of_time"  # the attribute of a trial that the job's time limit ended


def study_of(search: Search, observed: Iterable[Observation], min_accuracy: float | None = None) -> optuna.Study:
    """Return the study of a search that has applied its records, with each trial's results as attributes.

    Trials below `min_accuracy` (0..1) are marked as failed. Optuna's figures leave those out, and the others keep their
    numbers.
    """
    of_number = {observation.number: observation for observation in observed}
    study = optuna.create_study(direction="maximize" if search.spec.maximize else "minimize")
    for trial in search.trials():
        found = of_number.get(trial.number)
        study.add_trial(trial if found is None else _with_results(trial, found, min_accuracy))
    return study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Return the completed trials."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def ran_to_end(study: optuna.Study) -> optuna.Study:
    """Return a study of the completed trials that the job's time limit did not end."""
    return of_trials(study, [trial for trial in finished(study) if OUT_OF_TIME not in trial.user_attrs])


def of_trials(study: optuna.Study, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """Return a study of some trials of a study."""
    some = optuna.create_study(direction=study.direction)
    some.add_trials(trials)
    return some


def _with_results(trial: FrozenTrial, found: Observation, min_accuracy: float | None) -> FrozenTrial:
    trial.datetime_start = _instant(found.began) or trial.datetime_start
    if trial.state.is_finished():  # the row may be newer than the record
        trial.datetime_complete = _instant(found.ended) or trial.datetime_complete
    for name in REACHED if found.state.judged else COST:  # results of a diverged trial do not count
        if (value := getattr(found, name)) is not None:
            trial.set_user_attr(name, value)
    if found.out_of_time:
        trial.set_user_attr(OUT_OF_TIME, True)
    if min_accuracy is not None and (found.val_accuracy is None or found.val_accuracy < min_accuracy):
        trial.state, trial.value = TrialState.FAIL, None
        trial.datetime_complete = trial.datetime_complete or trial.datetime_start
    return trial


def _instant(seconds: float | None) -> datetime | None:
    """Return local time without a zone, as Optuna keeps it."""
    return None if seconds is None else datetime.fromtimestamp(seconds)
