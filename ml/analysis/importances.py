"""Importances of hyper-parameters, by Optuna's evaluators.

A sampler that learns draws later trials near good values of all parameters, and later trials are better. Then a
parameter without effect looks important, because its values changed while results improved. So results of such a search
are replaced by their ranks among trials of the same time. A parameter that all trials of a pack share has too few
observations for an importance, and is left out.
"""

import warnings
from collections.abc import Callable, Sequence
from copy import copy
from typing import TYPE_CHECKING

import numpy as np
import optuna

from ml.analysis.findings import Importance
from ml.analysis.observations import Observations
from ml.analysis.studies import finished, of_trials, ran_to_end

if TYPE_CHECKING:
    from optuna.importance import BaseImportanceEvaluator

LEAST = {"ped_anova": 10, "fanova": 5}  # trials; with fewer any importance is chance
LEAST_BEST = 5  # best trials that PED-ANOVA compares with all, as Optuna's documentation asks for
# fANOVA uses at most so many trials, evenly over the search: 300 take 3.5 seconds, 1,000 take 25.
MOST_FOR_FANOVA = 300
BLOCK = 20  # consecutive trials whose results are ranked together


def ped_anova(trials: int) -> "BaseImportanceEvaluator":
    """Return the evaluator that compares the best tenth of so many trials, but at least five, with all."""
    from optuna.importance import PedAnovaImportanceEvaluator  # only here, as it loads scikit-learn for a second

    return PedAnovaImportanceEvaluator(target_quantile=min(1.0, max(0.1, LEAST_BEST / max(1, trials))))


def _fanova(trials: int) -> "BaseImportanceEvaluator":
    from optuna.importance import FanovaImportanceEvaluator

    return FanovaImportanceEvaluator(seed=0)


METHODS: dict[str, tuple[Callable[[int], "BaseImportanceEvaluator"], str]] = {
    "ped_anova": (
        ped_anova,
        "Watanabe, Bansal, Hutter: PED-ANOVA, IJCAI 2023; for the best tenth of the trials, at least five",
    ),
    "fanova": (
        _fanova,
        "Hutter, Hoos, Leyton-Brown: An Efficient Approach for Assessing Hyperparameter Importance, ICML 2014",
    ),
}


def importances(
    study: optuna.Study, observed: Observations, methods: Sequence[str] = tuple(METHODS)
) -> list[Importance]:
    """Return the importance of each parameter for the study's objective, by every method.

    Args:
        study: the trials with their results.
        observed: the same trials, which say how values were drawn.
        methods: to compute, in this order.
    """
    ended = ran_to_end(study)
    shared = sorted(name for name in observed.design.per_pack if observed.per_pack(name))
    learned = observed.design.learned
    return [_importance(method, ranked(ended) if learned else ended, shared, learned) for method in methods]


def ranked(study: optuna.Study) -> optuna.Study:
    """Return a study whose values are ranks among about 20 consecutive trials, 0..1."""
    from scipy.stats import rankdata

    trials = [copy(trial) for trial in finished(study)]
    for block in np.array_split(np.arange(len(trials)), max(1, len(trials) // BLOCK)):
        ranks = rankdata([trials[i].value for i in block]) / max(1, len(block))
        for i, rank in zip(block, ranks, strict=True):
            trials[i].value = float(rank)
    return of_trials(study, trials)


def _importance(method: str, study: optuna.Study, shared: list[str], learned: bool) -> Importance:
    evaluator, source = METHODS[method]
    trials = finished(study)
    if method == "fanova" and len(trials) > MOST_FOR_FANOVA:
        trials = [trials[index * len(trials) // MOST_FOR_FANOVA] for index in range(MOST_FOR_FANOVA)]
        study = of_trials(study, trials)
    reason = _why_not(study, LEAST[method])
    left = sorted(name for name in _drawn_for_all(trials) if name in shared)
    names = [name for name in _drawn_for_all(trials) if name not in shared]
    if reason is None and not names:
        reason = "all trials of a pack share every parameter" if left else "no parameter was drawn for all trials"
    values = None if reason else _values(study, evaluator(len(trials)), names)
    facts = {"trials": len(trials), "ranked": learned, "undetermined": left}
    return Importance(method=method, source=source, values=values, reason=reason, **facts)


def _drawn_for_all(trials: list[optuna.trial.FrozenTrial]) -> list[str]:
    """Return the parameters that every trial has, and that differ between trials."""
    common = set.intersection(*(set(trial.params) for trial in trials)) if trials else set()
    return sorted(name for name in common if len({trial.params[name] for trial in trials}) > 1)


def _values(study: optuna.Study, evaluator: "BaseImportanceEvaluator", names: list[str]) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about few trials; the answer says how many there are
        found = optuna.importance.get_param_importances(study, evaluator=evaluator, params=names)
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
