"""TPE with given values: draws compared with exact sums, SciPy's mixtures, rejection and exhaustive search."""

import math
from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import PartialFixedSampler, TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator, _ParzenEstimatorParameters
from optuna.samplers._tpe.sampler import default_weights
from optuna.trial import TrialState, create_trial
from scipy.special import logsumexp
from scipy.stats import chisquare, kstest, truncnorm

from ml.tuning.conditional_tpe import ConditionalParzenEstimator, ConditionalTPESampler, _reweighted

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

PARAMETERS = _ParzenEstimatorParameters(1.0, True, False, default_weights, True)
MIXED: dict[str, BaseDistribution] = {
    "batch_size": IntDistribution(8, 256, log=True),
    "learning_rate": FloatDistribution(1e-5, 1e-1, log=True),
    "momentum": FloatDistribution(0.0, 0.9),
    "width": IntDistribution(16, 512, step=16),
    "optimizer": CategoricalDistribution(["adam", "sgd", "lion"]),
}
SMALL: dict[str, BaseDistribution] = {
    "batch_size": CategoricalDistribution([8, 16, 32]),
    "optimizer": CategoricalDistribution(["adam", "sgd"]),
    "width": IntDistribution(1, 4),
}


def _random(space: dict[str, BaseDistribution], n: int, seed: int) -> list[dict[str, Any]]:
    """Return random points of a space."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed))
    return [study.ask(space).params for _ in range(n)]


def _internal(space: dict[str, BaseDistribution], points: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.array([kind.to_internal_repr(p[name]) for p in points]) for name, kind in space.items()}


def _estimator(given: dict[str, float], space: dict[str, BaseDistribution], seed: int, n: int = 12) -> Any:
    return ConditionalParzenEstimator(given, _internal(space, _random(space, n, seed)), space, PARAMETERS)


# --- one density


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("fixed", [["batch_size"], ["optimizer"], ["width"], ["batch_size", "width"]])
def test_the_frequency_of_draws_follows_the_conditional_density(fixed: list[str], seed: int) -> None:
    """Over every cell of a small space, frequencies are l(free, fixed) / Σ l(·, fixed) by Optuna's joint density."""
    values = _internal(SMALL, _random(SMALL, 1, seed + 100))
    given = {name: float(values[name][0]) for name in fixed}
    estimator = _estimator(given, SMALL, seed)
    every = [dict(zip(SMALL, cell, strict=True)) for cell in product(range(3), range(2), range(1, 5))]
    cells = [tuple(cell.values()) for cell in every if given.items() <= cell.items()]
    joint = estimator.log_pdf(dict(zip(SMALL, np.array(cells).T, strict=True)))
    samples = estimator.sample(np.random.RandomState(seed), 5000)
    counts = Counter(zip(*(samples[name].astype(int).tolist() for name in SMALL), strict=True))

    assert set(counts) <= set(cells)
    assert chisquare([counts[cell] for cell in cells], 5000 * np.exp(joint - logsumexp(joint))).pvalue > 0.001


def _kernels(estimator: Any, name: str) -> Any:
    return estimator._mixture_distribution.distributions[list(estimator._search_space).index(name)]


def _density(estimator: Any, name: str, value: float) -> np.ndarray:
    """Return each component's density at a value of one name, by SciPy; for a name with steps, over an interval."""
    kernels, kind = _kernels(estimator, name), estimator._search_space[name]
    if isinstance(kind, CategoricalDistribution):
        return kernels.weights[:, int(value)]
    half = (kind.step or 0) / 2
    scale = math.log if kind.log else float
    low, high, left, right = map(scale, (kind.low - half, kind.high + half, value - half, value + half))
    normal = truncnorm(
        (low - kernels.mu) / kernels.sigma, (high - kernels.mu) / kernels.sigma, kernels.mu, kernels.sigma
    )
    return normal.cdf(right) - normal.cdf(left) if half else normal.pdf(left)


def _cumulative(estimator: Any, name: str, weights: np.ndarray) -> Any:
    """Return the distribution function of a continuous name, given the components' weights."""
    kernels, kind = _kernels(estimator, name), estimator._search_space[name]
    scale = np.log if kind.log else np.asarray
    low, high = scale(kind.low), scale(kind.high)
    normal = truncnorm(
        (low - kernels.mu) / kernels.sigma, (high - kernels.mu) / kernels.sigma, kernels.mu, kernels.sigma
    )
    return lambda x: (weights * normal.cdf(scale(x)[:, None])).sum(axis=1)


@pytest.mark.parametrize(
    "fixed", [["batch_size"], ["learning_rate"], ["momentum"], ["width"], ["optimizer"], list(MIXED)[1:4]]
)
def test_draws_follow_scipys_mixture(fixed: list[str]) -> None:
    """Every kind of name conditions every other: marginals equal those of the mixture with weights wᵢ Π kᵢ(fixed)."""
    values = _internal(MIXED, _random(MIXED, 1, 7))
    given = {name: float(values[name][0]) for name in fixed}
    estimator = _estimator(given, MIXED, 8)
    weights = estimator._mixture_distribution.weights * np.prod(
        [_density(estimator, n, v) for n, v in given.items()], axis=0
    )
    weights /= weights.sum()
    samples = estimator.sample(np.random.RandomState(9), 3000)

    for name in {"learning_rate", "momentum"} - set(fixed):
        assert kstest(samples[name], _cumulative(estimator, name, weights)).pvalue > 0.001, name
    for name, cells in {"batch_size": range(8, 257), "width": range(16, 513, 16), "optimizer": range(3)}.items():
        expected = 3000 * np.array([weights @ _density(estimator, name, cell) for cell in cells])
        if name in given:
            assert set(samples[name]) == {given[name]}
        else:
            assert chisquare(*_pooled([(samples[name] == c).sum() for c in cells], expected)).pvalue > 0.001, name


def _pooled(counts: Any, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return counts with neighbouring cells merged until a hundred are expected in each."""
    _, groups = np.unique(np.cumsum(expected) // 100, return_inverse=True)
    return np.bincount(groups, counts), np.bincount(groups, expected * sum(counts) / expected.sum())


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 10_000), n=st.integers(0, 60), fixed=st.sets(st.sampled_from(list(MIXED))))
def test_draws_have_the_given_values_and_lie_in_the_space(seed: int, n: int, fixed: set[str]) -> None:
    """For any given and observed values, even without observations, draws keep the given values and can be recorded."""
    values = _internal(MIXED, _random(MIXED, 1, seed + 1))
    given = {name: float(values[name][0]) for name in fixed}
    samples = _estimator(given, MIXED, seed, n).sample(np.random.RandomState(seed), 24)

    assert all(set(samples[name]) == {value} for name, value in given.items())
    assert all(MIXED[name]._contains(value) for name in MIXED for value in samples[name])


def test_with_given_values_far_from_all_observations_the_prior_is_used() -> None:
    """The product of 64 densities underflows even for the prior; the draws then come from the prior."""
    given = {f"x{i}": 999_000.0 for i in range(64)}
    space: dict[str, BaseDistribution] = {name: IntDistribution(1, 1_000_000) for name in given}
    space |= {"y": FloatDistribution(0, 1)}
    observed = {name: np.full(50, 0.001 if name == "y" else 1000.0) for name in space}
    estimator = ConditionalParzenEstimator(given, observed, space, PARAMETERS)
    drawn = estimator.sample(np.random.RandomState(0), 2000)["y"]
    prior = truncnorm(-0.5, 0.5, 0.5, 1)

    assert 1e-6**64 == 0
    assert kstest(drawn, prior.cdf).pvalue > 0.01


def test_weights_follow_from_densities_of_any_size() -> None:
    """Only the ratios of densities count, however small they are; if all are zero, the weights stay."""
    weights = np.array([0.5, 0.3, 0.2])
    tiny = np.array([math.log(2) - 1e6, -1e6, -np.inf])

    assert _reweighted(weights, tiny).tolist() == pytest.approx([10 / 13, 3 / 13, 0])
    assert _reweighted(weights, np.full(3, -np.inf)).tolist() == weights.tolist()


@settings(deadline=None, max_examples=50)
@given(n=st.integers(0, 2**53), seed=st.integers(0, 100))
def test_values_too_close_for_doubles_are_still_drawn(n: int, seed: int) -> None:
    """Draws are made even if rounding leaves little or nothing of the mass of a whole number."""
    space: dict[str, BaseDistribution] = {"n": IntDistribution(0, 2**53), "y": FloatDistribution(0, 1)}
    drawn = _estimator({"n": float(n)}, space, seed).sample(np.random.RandomState(0), 50)

    assert set(drawn["n"]) == {float(n)}
    assert np.isfinite(drawn["y"]).all()


# --- the sampler


def _study(points: list[dict[str, Any]], values: list[float], space: dict[str, BaseDistribution]) -> optuna.Study:
    """Return a study of completed trials, each with the names that its point has."""
    study = optuna.create_study(direction="maximize")
    for point, value in zip(points, values, strict=True):
        kinds = {name: space[name] for name in point}
        study.add_trial(create_trial(state=TrialState.COMPLETE, params=point, distributions=kinds, value=value))
    return study


def _draw(
    study: optuna.Study, sampler: Any, given: dict[str, Any], space: dict[str, BaseDistribution]
) -> dict[str, Any]:
    """Return the values that a trial with given values draws; the study does not keep the trial."""
    study.sampler = sampler
    trial_id = study._storage.create_new_trial(study._study_id)
    for name, value in given.items():
        study._storage.set_trial_param(trial_id, name, space[name].to_internal_repr(value), space[name])
    trial = optuna.Trial(study, trial_id)
    for name, kind in space.items():
        trial._suggest(name, kind)
    study.tell(trial, state=TrialState.FAIL)
    return trial.params


def _tpe(kind: Any = ConditionalTPESampler, **arguments: Any) -> Any:
    flags = {"multivariate": True, "group": True, "constant_liar": True, "n_startup_trials": 5}
    return kind(**flags | {"seed": 0} | arguments)


def _value(point: dict[str, Any]) -> float:
    """Return a made-up accuracy whose best learning rate rises with the batch size: 1e-4 at 8, 1e-2 at 256."""
    best = -4 + 2 * math.log2(point["batch_size"] / 8) / 5
    return math.exp(-abs(math.log10(point["learning_rate"]) - best))


RATES: dict[str, BaseDistribution] = {name: MIXED[name] for name in ("batch_size", "learning_rate")}


def _rates(sampler_of: Any, batch: int) -> np.ndarray:
    """Return the logarithms of twenty learning rates drawn at one batch size."""
    points = _random(RATES, 300, 0)
    study = _study(points, [_value(point) for point in points], RATES)
    return np.log10([sampler_of(study, seed, batch)["learning_rate"] for seed in range(20)])


def test_the_learning_rate_depends_on_the_given_batch_size() -> None:
    """A small batch size gives small learning rates, a large one large ones; PartialFixedSampler cannot do this."""

    def conditional(study: optuna.Study, seed: int, batch: int) -> dict[str, Any]:
        return _draw(study, _tpe(seed=seed), {"batch_size": batch}, RATES)

    def partial(study: optuna.Study, seed: int, batch: int) -> dict[str, Any]:
        sampler = PartialFixedSampler({"batch_size": batch}, _tpe(TPESampler, seed=seed))
        return _draw(study, sampler, {}, RATES)

    small, large = (_rates(conditional, batch) for batch in (8, 256))

    assert abs(np.median(small) - -4) < 0.3
    assert abs(np.median(large) - -2) < 0.3
    assert _rates(partial, 8).tolist() == _rates(partial, 256).tolist()


@pytest.mark.long
def test_conditional_draws_are_like_joint_draws_with_the_given_value() -> None:
    """With one candidate, draws come from l(x), both jointly and for a given batch size."""
    points = _random(SMALL, 40, 1)
    study = _study(points, list(np.random.default_rng(0).random(40)), SMALL)
    joint = [_draw(study, _tpe(TPESampler, n_ei_candidates=1, seed=seed), {}, SMALL) for seed in range(1500)]
    kept = Counter((p["optimizer"], p["width"]) for p in joint if p["batch_size"] == 16)
    n = sum(kept.values())
    drawn = [_draw(study, _tpe(n_ei_candidates=1, seed=seed), {"batch_size": 16}, SMALL) for seed in range(n)]
    counts = Counter((p["optimizer"], p["width"]) for p in drawn)
    cells = sorted(kept | counts)
    # For two samples of one size, Σ (a - b)² / (a + b) follows χ², with one degree of freedom less than cells.
    distance = sum((kept[c] - counts[c]) ** 2 / (kept[c] + counts[c]) for c in cells)

    assert n > 300
    assert distance < 26.1  # χ² with 8 - 1 degrees exceeds 26.1 once in 2,000


def _ratios(study: optuna.Study, space: dict[str, BaseDistribution], cells: list[dict[str, Any]]) -> np.ndarray:
    """Return log l(x) - log g(x) of each cell, by Optuna's unconditioned densities of the best tenth and the rest."""
    ranked = sorted(study.get_trials(), key=lambda trial: -trial.value if trial.value is not None else 0)
    ranked = [trial for trial in ranked if trial.state == TrialState.COMPLETE]
    best = math.ceil(0.1 * len(ranked))
    halves = (sorted(half, key=lambda trial: trial.number) for half in (ranked[:best], ranked[best:]))
    below, above = (_ParzenEstimator(_internal(space, [t.params for t in half]), space, PARAMETERS) for half in halves)
    return below.log_pdf(_internal(space, cells)) - above.log_pdf(_internal(space, cells))


@pytest.mark.parametrize("seed", range(5))
def test_the_candidate_with_the_best_joint_ratio_is_taken(seed: int) -> None:
    """If the candidates cover a small space, the draw is the best of the cells with the given value."""
    points = _random(SMALL, 30, seed)
    study = _study(points, list(np.random.default_rng(seed).random(30)), SMALL)
    given = {"batch_size": points[0]["batch_size"]}
    cells = [given | {"optimizer": o, "width": w} for o in ("adam", "sgd") for w in range(1, 5)]
    ratios = _ratios(study, SMALL, cells)

    assert _draw(study, _tpe(seed=seed, n_ei_candidates=2000), given, SMALL) == cells[int(np.argmax(ratios))]


def test_draws_without_given_values_equal_optunas() -> None:
    """A trial without given values draws exactly what Optuna's own sampler draws."""
    points = _random(MIXED, 30, 2)
    study = _study(points, [_value(point) for point in points], MIXED)

    for seed in range(5):
        assert _draw(study, _tpe(seed=seed), {}, MIXED) == _draw(study, _tpe(TPESampler, seed=seed), {}, MIXED)


def test_draws_in_the_startup_phase_are_random() -> None:
    """In the startup phase given values are kept, and the others are uniform in their range."""
    study = _study(_random(RATES, 4, 3), [0.1] * 4, RATES)
    drawn = [_draw(study, _tpe(seed=seed), {"batch_size": 9}, RATES) for seed in range(300)]

    assert {point["batch_size"] for point in drawn} == {9}
    assert kstest([(math.log10(point["learning_rate"]) + 5) / 4 for point in drawn], "uniform").pvalue > 0.01


BRANCHES: dict[str, BaseDistribution] = {
    "kind": CategoricalDistribution(["plain", "deep"]),
    "batch_size": MIXED["batch_size"],
    "learning_rate": MIXED["learning_rate"],
    "depth": IntDistribution(1, 9),
}


def _branched(n: int) -> optuna.Study:
    """Return a study in which `depth` is drawn only with the kind `deep`; Optuna puts it into a separate group."""
    points = _random(BRANCHES, n, 5)
    values = [_value(point) + (point["depth"] / 9 if point["kind"] == "deep" else 0) for point in points]
    shown = [{k: v for k, v in point.items() if k != "depth" or point["kind"] == "deep"} for point in points]
    return _study(shown, values, BRANCHES)


@pytest.mark.long
@pytest.mark.parametrize("given", [{"depth": 2}, {"kind": "plain"}, {"batch_size": 8, "depth": 2}, {"batch_size": 8}])
def test_a_given_name_conditions_only_its_group(given: dict[str, Any]) -> None:
    """A given name does not affect names of another group; within its group the other names depend on it."""
    study = _branched(200)
    plain, drawn = ([_draw(study, _tpe(seed=seed), values, BRANCHES) for seed in range(20)] for values in ({}, given))
    rates, usual = (np.median([math.log10(p["learning_rate"]) for p in points]) for points in (drawn, plain))
    depths, deep = (np.median([p["depth"] for p in points]) for points in (drawn, plain))

    assert all(point.items() >= given.items() for point in drawn)
    assert (rates < usual - 0.5) == ("batch_size" in given)
    assert "depth" in given or abs(depths - deep) <= 1
