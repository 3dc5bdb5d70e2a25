"""Conclusions of an analysis, tested on searches for parameters of which two have no effect.

A formula gives the results: they depend on the learning rate, the width and chance, a part of which the trials of a
pack share, as they share their minibatches. Batch size and optimizer change nothing. An analysis must not find an
effect of these more often than its level says.
"""

from collections import Counter
from functools import cache
from itertools import product

import numpy as np
import pytest
from scipy.stats import binomtest

from ml.analysis.correlations import correlations
from ml.analysis.design import Design
from ml.analysis.findings import Correlations, Importance
from ml.analysis.importances import importances
from ml.analysis.interactions import interactions
from ml.analysis.observations import Observation, Observations
from ml.analysis.studies import study_of
from ml.records import TrialState
from ml.specs import TuneSpec
from ml.tuning.search import Search

pytestmark = [
    pytest.mark.long,  # all tests together take a minute
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]

SPACE = {
    "batch_size": {"type": "categorical", "choices": [16, 32, 64, 128]},
    "learning_rate": {"type": "float", "low": 1e-4, "high": 1e-1, "log": True},
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    "hidden_size": {"type": "int", "low": 16, "high": 256, "log": True},
}
IDLE = ("batch_size", "optimizer=sgd")  # variables without effect
TRIALS, LANES, SEEDS = 40, (1, 2, 4, 8), 25  # with each sampler: 100 searches
SEARCHES = list(product(("random", "tpe"), LANES, range(SEEDS)))
FORESTS = 2  # seeds whose importances fANOVA computes too, which takes half a second each
LEVEL = 0.001  # of the tests below


def accuracy(drawn: dict[str, float]) -> float:
    """Return the part of a validation accuracy that is not chance; it depends on learning rate and width alone."""
    away = abs(np.log10(drawn["learning_rate"]) + 2.5)
    return float(0.95 - 0.01 * away + 0.002 * np.log2(drawn["hidden_size"]))


@cache
def searched(sampler: str, lanes: int, seed: int) -> tuple[Correlations, list[Importance], list[float]]:
    """Run a search by formula; return its correlations, its importances, and p-values of interactions."""
    fields = {"sampler": {"name": sampler}, "lanes": lanes, "seed": seed, "budget": {"trials": TRIALS}}
    spec = TuneSpec.model_validate({"model": "shallow", "search_space": SPACE, **fields})
    search, chance, trials = Search(spec), np.random.default_rng(seed), []
    for first in range(0, TRIALS, lanes):
        records = []
        for number in range(first, first + lanes):
            _, record = search.ask(number, records[0].suggestion if records else None)
            records.append(record)
        shared = chance.normal(0, 0.005)
        for record in records:
            own = chance.normal(0, 0.005)
            record.state, record.value = TrialState.COMPLETED, accuracy(record.suggestion or {}) + shared + own
            record.values = {10: record.value}
            search.apply(record)
            results = {"val_accuracy": record.value, "val_loss": 1 - record.value, "pack": first}
            trials.append(Observation(record.number, record.state, dict(record.suggestion or {}), **results))
    observed = Observations.of(spec.search_space, trials, Design.of(spec))
    tests = [one.p for one in interactions(observed) if one.outcome == "val_accuracy" and one.p is not None]
    methods = ("ped_anova", "fanova") if seed < FORESTS else ("ped_anova",)
    return correlations(observed), importances(study_of(search, trials), observed, methods), tests


def p_value(found: Correlations, kind: str, variable: str) -> float | None:
    """Return the p-value of a variable's correlation with the accuracy."""
    matrix = getattr(found, f"{kind}_p")
    p: float | None = matrix[found.variables.index(variable)][found.variables.index("val_accuracy")]
    return p


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
@pytest.mark.parametrize("variable", IDLE)
def test_one_in_twenty_null_correlations_is_significant(kind: str, variable: str) -> None:
    """At the level of 5 %, with any number of lanes: the count agrees with 5 % at a level of 0.1 %."""
    found = [p_value(searched(*search)[0], kind, variable) for search in SEARCHES]
    tested = [p for p in found if p is not None]
    alarms = sum(p < 0.05 for p in tested)

    assert len(tested) >= 90  # with 8 lanes, the five packs of a search may share a batch size
    assert binomtest(alarms, len(tested), 0.05).pvalue > LEVEL, f"{alarms} of {len(tested)}"


def test_one_in_twenty_null_interactions_is_significant() -> None:
    """No two parameters interact here."""
    found = [p for search in SEARCHES for p in searched(*search)[2]]
    alarms = sum(p < 0.05 for p in found)

    assert len(found) >= 100
    assert binomtest(alarms, len(found), 0.05).pvalue > LEVEL, f"{alarms} of {len(found)}"


def test_a_search_that_learns_has_no_p_values() -> None:
    """Its draws depend on results, so a p-value would not hold; the reason is given."""
    for lanes in LANES:
        found, _, tests = searched("tpe", lanes, 0)

        assert all(p is None for matrix in (found.pearson_p, found.spearman_p) for row in matrix for p in row)
        assert tests == []
        assert "sampler chose values" in (found.p_reason or "")


@pytest.mark.parametrize("method", ["ped_anova", "fanova"])
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_parameter_without_effect_is_first_no_more_often_than_by_chance(sampler: str, method: str) -> None:
    """Of four parameters each would be first in one of four searches by chance."""
    first: Counter[str] = Counter()
    for lanes in LANES:
        for seed in range(SEEDS):
            for found in searched(sampler, lanes, seed)[1]:
                if found.method == method:
                    first[max(found.values or {}, key=lambda name: (found.values or {})[name])] += 1

    for name in ("batch_size", "optimizer"):
        count = first[name]
        assert binomtest(count, first.total(), 0.25, alternative="greater").pvalue > LEVEL, dict(first)


def test_what_a_pack_shares_is_one_observation_and_has_no_importance() -> None:
    """With 8 lanes, five packs draw 40 trials."""
    found, by_method, _ = searched("random", 8, 0)
    batch, rate, value = (found.variables.index(name) for name in ("batch_size", "learning_rate", "val_accuracy"))

    assert (found.n[batch][value], found.n_effective[batch][value]) == (40, 5)
    assert (found.n[rate][value], found.n_effective[rate][value]) == (40, 40)
    assert [one.undetermined for one in by_method] == [["batch_size"], ["batch_size"]]
    assert all("batch_size" not in (one.values or {}) for one in by_method)
