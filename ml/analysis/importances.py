"""Importances: how much each hyper-parameter matters, by Optuna's evaluators."""

import warnings
from collections.abc import Callable

import optuna
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from ml.analysis.findings import Importance
from ml.analysis.studies import finished, of_trials, whole

LEAST = {"ped_anova": 10, "fanova": 5}  # trials; from fewer any importance is chance
LEAST_BEST = 5  # trials that PED-ANOVA holds against all, as its documentation in Optuna asks for
# Of more trials fANOVA looks at so many, evenly over the search: 300 take it 3.5 seconds, 1,000 take it 25.
MOST_FOR_FANOVA = 300


def ped_anova(trials: int) -> BaseImportanceEvaluator:
    """What sets the best tenth of so many trials apart, or the best five where those are more."""
    return PedAnovaImportanceEvaluator(target_quantile=min(1.0, max(0.1, LEAST_BEST / max(1, trials))))


def _fanova(trials: int) -> BaseImportanceEvaluator:
    return FanovaImportanceEvaluator(seed=0)


METHODS: dict[str, tuple[Callable[[int], BaseImportanceEvaluator], str]] = {
    "ped_anova": (
        ped_anova,
        "Watanabe, Bansal, Hutter: PED-ANOVA, IJCAI 2023; for the best tenth of the trials, or the best five",
    ),
    "fanova": (
        _fanova,
        "Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014",
    ),
}


def importances(study: optuna.Study) -> list[Importance]:
    """The importance of each parameter for the study's objective, by every method."""
    ended = whole(study)
    return [_importance(method, ended) for method in METHODS]


def _importance(method: str, study: optuna.Study) -> Importance:
    evaluator, source = METHODS[method]
    trials = finished(study)
    if method == "fanova" and len(trials) > MOST_FOR_FANOVA:
        trials = [trials[index * len(trials) // MOST_FOR_FANOVA] for index in range(MOST_FOR_FANOVA)]
        study = of_trials(study, trials)
    reason = _why_not(study, LEAST[method])
    values = None if reason else _values(study, evaluator(len(trials)))
    if values is not None and not values:
        values, reason = None, "no parameter was drawn for all trials"
    return Importance(method=method, source=source, values=values, trials=len(trials), reason=reason)


def _values(study: optuna.Study, evaluator: BaseImportanceEvaluator) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few trials: the answer says how many there are
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}


def _why_not(study: optuna.Study, least: int) -> str | None:
    """Why nothing can be said, None where something can."""
    trials = finished(study)
    if len(trials) < least:
        return f"{len(trials)} trials ran to their end; it takes {least}"
    if len({trial.value for trial in trials}) < 2:
        return "all trials reached the same value"
    if not any(len({trial.params.get(name) for trial in trials}) > 1 for name in trials[0].params):
        return "no parameter differs between trials"
    return None
