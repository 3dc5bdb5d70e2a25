"""TPE's joint density, given some of the values: the later trials of a pack are drawn from it.

TPE models good trials as a mixture of products, l(x) = Σᵢ wᵢ Πⱼ kᵢⱼ(xⱼ). A component i is a trial, and a kernel kᵢⱼ
belongs to a name j. g(x) models the other trials in the same way. Given the values x_f of some names, the density of
the free names is

    l(x_free | x_f) = Σᵢ vᵢ Πⱼ kᵢⱼ(xⱼ) over the free j,    vᵢ ∝ wᵢ Π_f kᵢ_f(x_f).

So components are chosen by vᵢ, and the free names are drawn from the kernels of the chosen components. The candidate
with the best log l(x) − log g(x) of the joint densities is taken. Optuna's PartialFixedSampler does not do this: it
removes the fixed names from the search space. The other names are then drawn from their marginal density, for example a
learning rate without regard to the batch size.

Only this file uses private names of Optuna (optuna 5.0: samplers/_tpe).
"""

import math
from functools import partial
from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.samplers._tpe import _truncnorm
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import (
    _BatchedCategoricalDistributions,
    _BatchedDistributions,
    _MixtureOfProductDistribution,
)
from optuna.trial import FrozenTrial


class ConditionalTPESampler(TPESampler):
    """TPE that draws a trial given the values it already has; if it has none, it draws as Optuna's TPE."""

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        given = {
            name: distribution.to_internal_repr(trial.params[name])
            for name, distribution in search_space.items()
            if name in trial.params
        }
        # Each group of names has its own density: a given name conditions the group that it is in.
        self._parzen_estimator_cls: Any = partial(ConditionalParzenEstimator, given)
        return super().sample_relative(study, trial, search_space)


class ConditionalParzenEstimator(_ParzenEstimator):
    """A mixture of products whose samples have the given values; its density stays the joint one."""

    def __init__(self, given: dict[str, float], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given = given

    def sample(self, rng: np.random.RandomState, size: int) -> dict[str, np.ndarray]:
        weights, all_kernels = self._mixture_distribution
        kernels = dict(zip(self._search_space, all_kernels, strict=True))
        given = {name: value for name, value in self._given.items() if name in kernels}
        if not given:
            return super().sample(rng, size)
        log_densities = sum(_log_densities(kernels[name], value) for name, value in given.items())
        free = [name for name in kernels if name not in given]
        mixture = _MixtureOfProductDistribution(_reweighted(weights, log_densities), [kernels[name] for name in free])
        drawn = dict(zip(free, mixture.sample(rng, size).T, strict=True))
        return {name: drawn[name] if name in drawn else np.full(size, given[name]) for name in kernels}


def _reweighted(weights: np.ndarray, log_densities: np.ndarray | int) -> np.ndarray:
    """Return the weights times these densities, normalised; in logarithms, so that the largest never underflows."""
    log_weights = np.log(weights) + log_densities
    largest = log_weights.max()
    if not np.isfinite(largest):  # no component has a density there: doubles cannot resolve the values
        return weights
    scaled = np.exp(log_weights - largest)
    return np.asarray(scaled / scaled.sum())


def _log_densities(kernels: _BatchedDistributions, value: float) -> np.ndarray:
    """Return each component's log density at a value of one name, up to a constant that all components share."""
    if isinstance(kernels, _BatchedCategoricalDistributions):
        return np.asarray(np.log(kernels.weights[:, int(value)]))
    low, high = _standard(kernels, kernels.adapted_low), _standard(kernels, kernels.adapted_high)
    if kernels.step == 0.0:
        x = math.log(value) if kernels.is_log else value
        return _truncnorm.logpdf(np.array(x), low, high, kernels.mu, kernels.sigma)
    edges = (value - kernels.step / 2, value + kernels.step / 2)
    left, right = (_standard(kernels, math.log(edge) if kernels.is_log else edge) for edge in edges)
    with np.errstate(divide="ignore", invalid="ignore"):  # both edges may be the same double
        mass = np.nan_to_num(_truncnorm._log_gauss_mass(left, right), nan=-np.inf)
        return np.asarray(mass - _truncnorm._log_gauss_mass(low, high))


def _standard(kernels: Any, x: float) -> np.ndarray:
    """Return the distance of x from each component's mean, in standard deviations."""
    return np.asarray((x - kernels.mu) / kernels.sigma)
