"""Interactions and groups, compared with a textbook's sums of squares, pandas and scikit-learn."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.linear_model import LinearRegression
from support.searched import reached, searched

from ml.analysis.findings import Interaction
from ml.analysis.groups import effects, grouped
from ml.analysis.interactions import AnovaResult, interactions, two_way, within
from ml.analysis.observations import Column, Observations


def design(seed: int, replicates: int, strength: float) -> pd.DataFrame:
    """Return a table of two factors of 3 and 4 levels, with an interaction of a given strength."""
    draws = np.random.RandomState(seed)
    rows = [(a, b) for a in range(3) for b in range(4) for _ in range(replicates)]
    frame = pd.DataFrame(rows, columns=["a", "b"])
    noise = draws.randn(len(frame))
    return frame.assign(y=frame.a + 0.5 * frame.b + strength * (frame.a - 1) * (frame.b - 1.5) + 0.3 * noise)


def anova(frame: pd.DataFrame) -> AnovaResult:
    """Return the analysis of variance of a table."""
    found = two_way(frame.a.to_numpy(), frame.b.to_numpy(), frame.y.to_numpy())
    assert isinstance(found, AnovaResult)
    return found


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_a_balanced_design_gives_the_textbooks_sums_of_squares(strength: float) -> None:
    """Pandas sums squares between levels, between cells (minus both factors), and within cells."""
    frame = design(1, 5, strength)
    grand = frame.y.mean()
    total = ((frame.y - grand) ** 2).sum()
    by = {key: ((frame.groupby(key).y.transform("mean") - grand) ** 2).sum() for key in ("a", "b")}
    cells = ((frame.groupby(["a", "b"]).y.transform("mean") - grand) ** 2).sum()
    interaction, within = cells - by["a"] - by["b"], total - cells
    f = (interaction / 6) / (within / 48)
    found = anova(frame)

    assert (found.share_one, found.share_other, found.share) == pytest.approx(
        (by["a"] / total, by["b"] / total, interaction / total), abs=1e-12
    )
    assert (found.f, found.f_df) == (pytest.approx(f), (6, 48))
    assert found.p == pytest.approx(stats.f.sf(f, 6, 48))
    assert (found.p is not None and found.p < 1e-6) == (strength > 0)


def test_an_unbalanced_design_equals_the_difference_of_two_regressions() -> None:
    """The interaction is the part that a model of all cells explains beyond a model of both main effects."""
    frame = design(2, 4, 0.5).sample(35, random_state=0)
    dummies = pd.get_dummies(frame[["a", "b"]].astype(str)).astype(float)
    cell = pd.get_dummies(frame.a.astype(str) + "/" + frame.b.astype(str)).astype(float)
    left = [((frame.y - LinearRegression().fit(x, frame.y).predict(x)) ** 2).sum() for x in (dummies, cell)]
    total = ((frame.y - frame.y.mean()) ** 2).sum()
    found = anova(frame)

    assert found.share == pytest.approx((left[0] - left[1]) / total)
    assert found.f_df == (cell.shape[1] - 6, 35 - cell.shape[1])


def test_chance_alone_is_rarely_taken_for_an_interaction() -> None:
    """Of 200 designs without an interaction, about one in twenty has a p-value under 0.05."""
    p = [anova(design(seed, 3, 0.0)).p or 0.0 for seed in range(200)]

    assert stats.binomtest(sum(value < 0.05 for value in p), len(p), 0.05).pvalue > 0.001
    assert stats.kstest(p, "uniform").pvalue > 0.001


EFFECTS = {"linear": lambda x: x, "quadratic": lambda x: x**2, "exponential": np.exp}


def plain_effects(seed: int, together: float, effect: str) -> AnovaResult:
    """Return the test of two numbers with correlation `together`, each with a separate effect on the outcome."""
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_normal([0, 0], [[1, together], [together, 1]], 120)
    values = EFFECTS[effect](drawn).sum(1) + 0.1 * rng.normal(size=len(drawn))
    columns = [Column(name, tuple(map(float, own))) for name, own in zip("xy", drawn.T, strict=True)]
    groups = [grouped(column, 4) for column in columns]
    beside = np.hstack([within(*pair) for pair in zip(columns, groups, strict=True)])
    found = two_way(groups[0].of_trial, groups[1].of_trial, values, beside)
    assert isinstance(found, AnovaResult)
    return found


@pytest.mark.parametrize("together", [0.0, 0.6])
@pytest.mark.parametrize("effect", EFFECTS)
def test_main_effects_of_correlated_numbers_are_rarely_taken_for_an_interaction(effect: str, together: float) -> None:
    """Groups hide differences within a range; with covariates, about one in twenty has p under 0.05."""
    found = [plain_effects(seed, together, effect).p or 0.0 for seed in range(100)]

    assert stats.binomtest(sum(p < 0.05 for p in found), 100, 0.05, alternative="greater").pvalue > 0.001


def test_an_interaction_of_numbers_is_found_besides_their_main_effects() -> None:
    """The outcome contains the product of the two numbers."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(120, 2))
    columns = [Column(name, tuple(map(float, own))) for name, own in zip("xy", drawn.T, strict=True)]
    groups = [grouped(column, 4) for column in columns]
    beside = np.hstack([within(*pair) for pair in zip(columns, groups, strict=True)])
    values = drawn.sum(1) + drawn.prod(1) + 0.3 * rng.normal(size=len(drawn))
    found = two_way(groups[0].of_trial, groups[1].of_trial, values, beside)

    assert isinstance(found, AnovaResult)
    assert (found.p or 0.0) < 1e-6


def _of(found: list[Interaction], one: str, other: str, outcome: str) -> Interaction:
    (wanted,) = [i for i in found if (i.one, i.other, i.outcome) == (one, other, outcome)]
    return wanted


def test_a_planted_interaction_ranks_first_although_the_correlation_is_weak() -> None:
    """The best learning rate depends on the optimizer: it has no effect alone, but the test finds one."""
    search = searched(160)
    observed = Observations.of(search.spec.search_space, reached(search, 160))
    found = interactions(observed)
    accuracy = [one for one in found if one.outcome == "val_accuracy"]
    first = accuracy[0]
    means = np.array([[cell.mean for cell in row] for row in first.cells], float)
    alone = stats.spearmanr(observed.variables["learning_rate"], observed.variables["val_accuracy"])

    assert alone.pvalue > 0.01
    assert (first.one, first.other, first.other_groups) == ("learning_rate", "optimizer", ["adam", "sgd"])
    assert first.share is not None
    assert first.share > 0.5
    assert first.p_holm is not None
    assert first.p_holm < 1e-6
    assert (np.diff(means[:, 0]) > 0).all()
    assert (np.diff(means[:, 1]) < 0).all()
    assert (_of(found, "batch_size", "hidden_size", "seconds").p_holm or 1) < 0.05


def test_cells_and_groups_equal_those_of_pandas() -> None:
    """Each trial is in one cell; means, deviations and counts by group equal those of a groupby."""
    search = searched(60)
    observed = Observations.of(search.spec.search_space, reached(search, 60))
    frame = pd.DataFrame([{**t.params, "accuracy": t.val_accuracy, "time": t.seconds} for t in observed.trials])
    (effect,) = [one for one in effects(observed) if one.parameter == "hidden_size"]
    edges = [float(part) for group in effect.groups for part in (group.label.split(" … ") * 2)[:2]]
    assert edges == sorted(edges)
    for group in effect.groups:
        low, high = map(float, (group.label.split(" … ") * 2)[:2])
        inside = frame[frame.hidden_size.between(low, high)]

        assert group.trials == len(inside)
        assert (group.val_accuracy, group.val_accuracy_sd) == pytest.approx(
            (inside.accuracy.mean(), inside.accuracy.std())
        )
        assert (group.seconds, group.seconds_sd) == pytest.approx((inside.time.mean(), inside.time.std()))
    for one in interactions(observed):
        assert sum(cell.trials for row in one.cells for cell in row) == one.trials == len(frame)


def test_trials_with_the_same_value_stay_in_one_group() -> None:
    """Ranges hold similar numbers of trials, as far as equal values allow."""
    groups = grouped(Column("x", (1.0,) * 50 + tuple(map(float, range(2, 52)))), 4)

    assert groups.labels[0] == "1"
    assert np.bincount(groups.of_trial)[0] == 50
    assert len(groups.labels) == len(np.unique(groups.of_trial)) <= 4


@pytest.mark.parametrize(
    ("one", "other", "y", "reason"),
    [
        ([0, 0, 0], [0, 1, 2], [1.0, 2.0, 3.0], "the same value in all trials"),
        ([0, 0, 1, 1], [0, 1, 0, 1], [1.0, 1.0, 1.0, 1.0], "the outcome is the same"),
        ([], [], [], "the same value in all trials"),
    ],
)
def test_a_pair_that_cannot_be_tested_has_a_reason(
    one: list[int], other: list[int], y: list[float], reason: str
) -> None:
    """No number is divided by zero."""
    found = two_way(np.array(one, int), np.array(other, int), np.array(y))

    assert isinstance(found, str)
    assert reason in found


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ([0, 0, 1, 1], [0, 1, 0, 1], "chance cannot be estimated"),
        ([0, 0, 1, 1], [0, 0, 1, 1], "too few combinations"),
    ],
)
def test_shares_are_given_even_if_no_test_is_possible(one: list[int], other: list[int], reason: str) -> None:
    """There is one trial per combination, or the parameters never varied separately."""
    found = two_way(np.array(one), np.array(other), np.array([1.0, 2.0, 3.0, 5.0]))

    assert isinstance(found, AnovaResult)
    assert found.p is None
    assert found.reason is not None
    assert reason in found.reason


@pytest.mark.parametrize("values", [[*map(float, range(1, 7)), *[7.0] * 64], [1.0, 2.0, 3.0, 4.0, *[7.0] * 16]])
def test_a_parameter_that_is_mostly_at_its_highest_value_has_groups(values: list[float]) -> None:
    """The highest value is one group, and all lower values are another."""
    labels = grouped(Column("x", tuple(values)), 4).labels

    assert labels == (f"1 … {values[-1] - 1 if len(values) > 50 else 4:g}", "7")
