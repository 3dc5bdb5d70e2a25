"""A job's study as Optuna's own analyses take it: with the time of each trial, and what else it reached."""

from collections.abc import Iterable, Sequence
from datetime import datetime

import optuna
from optuna.trial import FrozenTrial, TrialState

from ml.analysis.observations import Observation
from ml.tuning.search import Search

COST = ("seconds", "flops", "weights", "latency_seconds")
REACHED = ("val_accuracy", "val_loss", *COST)
CUT = "out_of_time"  # the attribute of a trial that the job's limit cut


def study_of(search: Search, observed: Iterable[Observation], min_accuracy: float | None = None) -> optuna.Study:
    """The study of a search, whose records were applied, with what its trials reached as attributes.

    Trials under `min_accuracy` (0..1) are marked as failed, which Optuna's figures leave out: so the others keep their
    numbers.
    """
    of_number = {observation.number: observation for observation in observed}
    study = optuna.create_study(direction="maximize" if search.spec.maximize else "minimize")
    for trial in search.trials():
        found = of_number.get(trial.number)
        study.add_trial(trial if found is None else _told(trial, found, min_accuracy))
    return study


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """The trials that ran to their end."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def whole(study: optuna.Study) -> optuna.Study:
    """A study of the trials that ran to their end and were not cut by the job's limit."""
    return of_trials(study, [trial for trial in finished(study) if CUT not in trial.user_attrs])


def of_trials(study: optuna.Study, trials: Sequence[FrozenTrial]) -> optuna.Study:
    """A study of some trials of a study."""
    some = optuna.create_study(direction=study.direction)
    some.add_trials(trials)
    return some


def _told(trial: FrozenTrial, found: Observation, min_accuracy: float | None) -> FrozenTrial:
    trial.datetime_start = _instant(found.began) or trial.datetime_start
    if trial.state.is_finished():  # the row may be newer than the record, and have ended since
        trial.datetime_complete = _instant(found.ended) or trial.datetime_complete
    for name in REACHED if found.state.judged else COST:  # what one reached that diverged then counts for nothing
        if (value := getattr(found, name)) is not None:
            trial.set_user_attr(name, value)
    if found.out_of_time:
        trial.set_user_attr(CUT, True)
    if min_accuracy is not None and (found.val_accuracy is None or found.val_accuracy < min_accuracy):
        trial.state, trial.value = TrialState.FAIL, None
        trial.datetime_complete = trial.datetime_complete or trial.datetime_start
    return trial


def _instant(seconds: float | None) -> datetime | None:
    """In local time without a zone, as Optuna has it."""
    return None if seconds is None else datetime.fromtimestamp(seconds)
