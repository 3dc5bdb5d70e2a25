"""Importances by Optuna, for jobs with many, few and no usable trials."""

from dataclasses import replace

import pytest
from support.searched import reached, searched

from ml.analysis.analysis import analysis
from ml.analysis.importances import importances, ped_anova
from ml.analysis.observations import Observations
from ml.analysis.studies import study_of
from ml.records import TrialState


def test_the_parameter_that_matters_has_the_greatest_importance() -> None:
    """Shares add up to 1 by both methods; the batch size, which does not matter here, has little."""
    search = searched(120)
    for found in importances(study_of(search, reached(search, 120)), Observations.of(search.spec.search_space, [])):
        assert found.values is not None
        assert sum(found.values.values()) == pytest.approx(1)
        assert found.values["batch_size"] < max(found.values["learning_rate"], found.values["optimizer"])
        assert found.trials == 90
        assert found.reason is None


def test_trials_that_the_jobs_time_limit_ended_do_not_count() -> None:
    """Their values are low because they ended early."""
    search = searched(40)
    trials = reached(search, 40)
    cut = [replace(one, out_of_time=one.state == TrialState.STOPPED_EARLY) for one in trials]
    counts = [
        {one.trials for one in importances(study_of(search, some), Observations.of(search.spec.search_space, some))}
        for some in (trials, cut)
    ]

    assert counts == [{30}, {20}]


@pytest.mark.parametrize(("trials", "best"), [(10, 5), (25, 5), (50, 5), (80, 8), (1000, 100)])
def test_ped_anova_takes_the_best_tenth_but_at_least_five_trials(trials: int, best: int) -> None:
    """Optuna asks for five; with fewer, one or two trials would decide."""
    assert ped_anova(trials)._target_quantile * trials == pytest.approx(best)


@pytest.mark.parametrize("trials", [0, 1, 2, 4])
def test_a_job_with_few_trials_is_analysed_as_far_as_possible(trials: int) -> None:
    """A value that cannot be computed is null with a reason; nothing is raised."""
    search = searched(trials)
    found = analysis(search, reached(search, trials))

    assert sum(found.trials.values()) == trials
    assert all(one.values is None and one.reason for one in found.importances)
    assert all(one.p is None and one.reason for one in found.interactions)


def test_a_job_without_parameters_is_analysed_too() -> None:
    """All of its trials have the same parameters."""
    search = searched(16, {"batch_size": 32})
    found = analysis(search, reached(search, 16))

    assert (found.parameters, found.effects, found.interactions) == ([], [], [])
    assert [one.reason for one in found.importances] == ["no parameter differs between trials"] * 2
    assert found.correlations.variables == ["val_loss", "val_accuracy", "seconds", "epochs_run"]
