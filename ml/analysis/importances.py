"""Importances of hyper-parameters, by Optuna's evaluators."""

import warnings
from collections.abc import Callable

import optuna
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from ml.analysis.findings import Importance
from ml.analysis.studies import finished, of_trials, ran_to_end

LEAST = {"ped_anova": 10, "fanova": 5}  # trials; with fewer any importance is chance
LEAST_BEST = 5  # best trials that PED-ANOVA compares with all, as Optuna's documentation asks for
# fANOVA uses at most so many trials, evenly over the search: 300 take 3.5 seconds, 1,000 take 25.
MOST_FOR_FANOVA = 300


def ped_anova(trials: int) -> BaseImportanceEvaluator:
    """Return the evaluator that compares the best tenth of so many trials, but at least five, with all."""
    return PedAnovaImportanceEvaluator(target_quantile=min(1.0, max(0.1, LEAST_BEST / max(1, trials))))


def _fanova(trials: int) -> BaseImportanceEvaluator:
    return FanovaImportanceEvaluator(seed=0)


METHODS: dict[str, tuple[Callable[[int], BaseImportanceEvaluator], str]] = {
    "ped_anova": (
        ped_anova,
        "Watanabe, Bansal, Hutter: PED-ANOVA, IJCAI 2023; for the best tenth of the trials, at least five",
    ),
    "fanova": (
        _fanova,
        "Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014",
    ),
}


def importances(study: optuna.Study) -> list[Importance]:
    """Return the importance of each parameter for the study's objective, by every method."""
    ended = ran_to_end(study)
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
        warnings.simplefilter("ignore", UserWarning)  # about few trials; the answer says how many there are
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}


def _why_not(study: optuna.Study, least: int) -> str | None:
    """Return why there are no importances; None if there are."""
    trials = finished(study)
    if len(trials) < least:
        return f"only {len(trials)} trials ran to their end; at least {least} are needed"
    if len({trial.value for trial in trials}) < 2:
        return "all trials reached the same value"
    if not any(len({trial.params.get(name) for trial in trials}) > 1 for name in trials[0].params):
        return "no parameter differs between trials"
    return None
