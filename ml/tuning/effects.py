"""Searched hyper-parameters without effect: their trials would differ by chance alone."""

from dataclasses import replace
from typing import Any

from ml.errors import Problem, SpecError
from ml.parameters.space import Fixed
from ml.specs import TuneSpec
from ml.training.augmentation import NONE, SIGMA, Augmentation
from ml.tuning.keys import bases_of


def check_effects(spec: TuneSpec) -> None:
    """Check that every searched hyper-parameter can change the training of a trial, such as momentum without SGD.

    Only new jobs are checked. Jobs that were accepted before go on.

    Raises:
        SpecError: if one changes nothing; it names all of them.
    """
    idle = without_effect(spec)
    advice = "changes no trial of this search; leave it out, or search what it depends on too"
    if idle:
        raise SpecError([Problem(("search_space", name), advice) for name in idle])


def without_effect(spec: TuneSpec) -> list[str]:
    """Return the searched hyper-parameters that change nothing, as far as the corners of the search space show."""
    bases = bases_of(spec)
    return [name for name in spec.search_space if _varies(spec, name) and not _has_effect(spec, bases, name)]


def _varies(spec: TuneSpec, name: str) -> bool:
    dimension = spec.search_space[name]
    return not isinstance(dimension, Fixed) and dimension.size() != 1


def _has_effect(spec: TuneSpec, bases: list[dict[str, Any]], name: str) -> bool:
    values = spec.search_space[name].corners()
    return any(_differ(spec, [{**base, name: value} for value in values]) for base in bases)


def _differ(spec: TuneSpec, drawn: list[dict[str, Any]]) -> bool:
    first = _training(spec, drawn[0])
    return first is None or any(_training(spec, other) != first for other in drawn[1:])


def _training(spec: TuneSpec, drawn: dict[str, Any]) -> tuple[Any, ...] | None:
    """Return all that hyper-parameters decide about a training; None if no network can be built from them."""
    try:
        params = spec.params(drawn)
        layers = spec.layers(params)
    except Exception:  # any error of a network: this only probes
        return None
    recipe = params.schedule or "constant", params.label_smoothing or 0.0, params.ema_decay or 0.0
    distortion = _distortion(Augmentation.of(params))
    return params.batch_size, layers, params.of_optimizer(), spec.epochs(params), distortion, recipe


def _distortion(augmentation: Augmentation) -> Augmentation:
    """Return an augmentation that is equal for equal distortions: the smoothness matters for elastic ones only."""
    if not augmentation:
        return NONE
    return augmentation if augmentation.elastic else replace(augmentation, elastic_sigma=SIGMA)
