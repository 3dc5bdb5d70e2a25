"""Correlations, compared with pandas and scipy on a table of the same trials."""

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from support.searched import reached, searched

from ml.analysis.correlations import correlations
from ml.analysis.findings import Correlations
from ml.analysis.observations import ENDED, Observation, Observations
from ml.records import TrialState


def table(trials: list[Observation]) -> pd.DataFrame:
    """Return the trials that ran to their end as a pandas table."""
    ended = [trial for trial in trials if trial.state in ENDED]
    frame = pd.DataFrame([{**trial.params, **dataclasses.asdict(trial)} for trial in ended])
    return frame.assign(**{"optimizer=sgd": (frame["optimizer"] == "sgd").astype(float)})


@pytest.fixture(scope="module")
def trials() -> list[Observation]:
    """Return forty trials, ten of them pruned."""
    return reached(searched(40), 40)


@pytest.fixture(scope="module")
def found(trials: list[Observation]) -> Correlations:
    """Return the correlations of the forty trials."""
    return correlations(Observations.of(searched(40).spec.search_space, trials))


def test_coefficients_equal_those_of_pandas(trials: list[Observation], found: Correlations) -> None:
    """Both coefficients cover parameters, loss, accuracy and time, and leave out pruned trials."""
    names = [name for name in found.variables if name != "epochs_run"]
    frame = table(trials)[names].astype(float)

    assert names == [
        "batch_size",
        "learning_rate",
        "optimizer=sgd",
        "hidden_size",
        "val_loss",
        "val_accuracy",
        "seconds",
    ]
    assert len(frame) == 30
    for kind, matrix in (("pearson", found.pearson), ("spearman", found.spearman)):
        ours = pd.DataFrame(matrix, found.variables, found.variables).loc[names, names].astype(float)
        expected = frame.corr(kind)
        off_diagonal = ~np.eye(len(names), dtype=bool)
        np.testing.assert_allclose(ours.to_numpy()[off_diagonal], expected.to_numpy()[off_diagonal], atol=1e-12)


def test_p_values_follow_the_t_distribution(found: Correlations) -> None:
    """They are two-sided, for t = r √((n − 2) / (1 − r²)) with n − 2 degrees of freedom, for both coefficients."""
    for i, one in enumerate(found.variables):
        for j in range(i):
            for r, p in ((found.pearson[i][j], found.pearson_p[i][j]), (found.spearman[i][j], found.spearman_p[i][j])):
                if r is None or abs(r) > 1 - 1e-9:
                    continue
                n = found.n[i][j]
                t = r * math.sqrt((n - 2) / (1 - r * r))

                assert p == pytest.approx(2 * stats.t.sf(abs(t), n - 2), abs=1e-9), one


def test_a_variable_that_does_not_vary_is_null_with_a_reason(found: Correlations) -> None:
    """All trials ran two epochs, so epochs have no coefficients, and the reason says so."""
    place = found.variables.index("epochs_run")

    for matrix in (found.pearson, found.pearson_p, found.spearman, found.spearman_p):
        assert all(row[place] is None for row in matrix)
        assert matrix[place] == [None] * len(found.variables)
    reasons = {(gap.one, gap.other): gap.reason for gap in found.reasons}
    assert reasons["seconds", "epochs_run"] == "epochs_run has one value in all 30 trials"


@pytest.mark.parametrize("number", [0, 1, 2])
def test_two_trials_have_no_correlation(number: int) -> None:
    """Two points always lie on a line."""
    search = searched(2)
    found = correlations(Observations.of(search.spec.search_space, reached(search, number)))

    assert all(value is None for row in found.pearson for value in row)
    assert len(found.reasons) == len(found.variables) * (len(found.variables) + 1) / 2


def test_a_list_counts_as_its_length_and_the_mean_of_its_items() -> None:
    """Networks with different numbers of layers can then be compared."""
    spec = searched(1, {"hidden_size": {"type": "categorical", "choices": [16, 32]}}).spec
    listed = [[100, 300], [50], [10, 20, 30]]
    trials = [Observation(number, TrialState.COMPLETED, {"hidden_size": value}) for number, value in enumerate(listed)]
    columns = Observations.of(spec.search_space, trials).columns

    assert [(column.name, column.values) for column in columns] == [
        ("hidden_size.length", (2.0, 1.0, 3.0)),
        ("hidden_size.mean", (200.0, 50.0, 20.0)),
    ]


@pytest.mark.parametrize(("n", "chance"), [(3, 1 / 3), (4, 1 / 12), (5, 1 / 60), (8, 2 / 40320)])
def test_the_p_value_of_few_trials_in_perfect_order_counts_all_orders(n: int, chance: float) -> None:
    """Only one order and its reverse are as extreme, so p is 2 / n!; Student's t would give 0."""
    assert _spearman([float(i) for i in range(n)], [float(i**3) for i in range(n)]) == pytest.approx(chance)


def test_the_p_value_of_few_trials_with_ties_equals_scipys_permutation_test() -> None:
    """SciPy tries all pairings of seven values, two of which are equal."""
    x, y = [1.0, 2.0, 2.0, 4.0, 5.0, 6.0, 7.0], [2.0, 1.0, 4.0, 3.0, 3.0, 7.0, 5.0]
    exact = stats.permutation_test(
        (x,),
        lambda x: abs(stats.spearmanr(x, y).statistic),
        permutation_type="pairings",
        n_resamples=np.inf,
        alternative="greater",
    )

    assert _spearman(x, y) == pytest.approx(exact.pvalue)


def test_a_trial_that_the_jobs_time_limit_ended_is_left_out() -> None:
    """Its results are worse because it ended early, like those of a pruned trial."""
    spec = searched(1).spec
    trials = reached(searched(8), 8)
    cut = dataclasses.replace(
        next(one for one in trials if one.ran_to_end), state=TrialState.STOPPED_EARLY, out_of_time=True
    )
    observed = Observations.of(spec.search_space, [cut if one.number == cut.number else one for one in trials])

    assert [one.number for one in observed.trials] == [
        one.number for one in trials if one.ran_to_end and one.number != cut.number
    ]


def _spearman(x: list[float], y: list[float]) -> float:
    trials = [
        Observation(number, TrialState.COMPLETED, {"learning_rate": rate}, val_loss=loss)
        for number, (rate, loss) in enumerate(zip(x, y, strict=True))
    ]
    space = searched(1, {"learning_rate": {"type": "float", "low": 0.01, "high": 10.0}}).spec.search_space
    found = correlations(Observations.of(space, trials))
    p = found.spearman_p[0][found.variables.index("val_loss")]
    assert p is not None
    return p
