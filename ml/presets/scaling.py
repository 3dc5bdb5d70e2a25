"""Smaller versions of a search: fewer images, trials and epochs, but every parameter's whole range."""

from collections.abc import Sequence
from typing import Any, TypeVar

from ml.datasets import split_sizes
from ml.parameters.space import Dimension, Grid, Value, grid_values
from ml.specs import TuneSpec

LEAST_IMAGES = 150  # training and validation images: 120 train, and the report's largest batch is 100
LEAST_TRIALS = 12  # two more than TPE draws at random
LEAST_EPOCHS = 2  # a first one, and one that may be better
LEAST_SECONDS = 20.0  # after which the trainer is warm

T = TypeVar("T")


def scaled(spec: TuneSpec, scale: float) -> TuneSpec:
    """Return the search with its images, trials, seconds and epochs multiplied by `scale`, in (0, 1].

    Each number is rounded and kept at or above its LEAST_… constant. A grid keeps an even spread of each parameter's
    values, always with the first and the last. If d parameters vary, each keeps scale^(1/d) of its values, but at
    least two. At scale 1 the search stays as it is.
    """
    if scale == 1:
        return spec
    body = {**spec.model_dump(), "dataset": spec.dataset}
    epochs = _epochs(spec, scale)
    space = {name: _thinned(spec, name, scale) for name in spec.search_space}
    if isinstance(own := spec.search_space.get("epochs"), Grid):
        values = _distinct(_kept(spec, own, scale), scale)
        space["epochs"], epochs = {"type": "grid", "values": values}, max(values)
    budget = {"trials": _trials(spec, scale), "seconds": _seconds(spec, scale), "epochs": epochs}
    return TuneSpec.model_validate({**body, "images": _images(spec, scale), "search_space": space, "budget": budget})


def spread(values: Sequence[T], count: int) -> list[T]:
    """Return `count` evenly spaced values, with the first and the last; at least two if there are two."""
    last = len(values) - 1
    count = min(max(count, 2), len(values))
    return [values[round(i * last / (count - 1))] for i in range(count)] if count > 1 else list(values)


def _images(spec: TuneSpec, scale: float) -> int:
    train, validation, _ = split_sizes(spec.dataset.size, spec.dataset.official_test, spec.split)
    known = min(spec.images or train + validation, train + validation)
    return min(known, max(LEAST_IMAGES, round(scale * known)))


def _trials(spec: TuneSpec, scale: float) -> int | None:
    trials = spec.budget.trials
    return None if trials is None else min(trials, max(LEAST_TRIALS, round(scale * trials)))


def _seconds(spec: TuneSpec, scale: float) -> float | None:
    seconds = spec.budget.seconds
    return None if seconds is None else min(seconds, max(LEAST_SECONDS, scale * seconds))


def _epochs(spec: TuneSpec, scale: float) -> int:
    # Early stopping needs one epoch to compare with, `patience` epochs to lose, and one more to save.
    least = spec.early_stopping.patience + 2 if spec.early_stopping else LEAST_EPOCHS
    return min(spec.budget.epochs, max(least, round(scale * spec.budget.epochs)))


def _distinct(epochs: Sequence[Any], scale: float) -> list[int]:
    """Return scaled numbers of epochs, ascending and all different."""
    found: list[int] = []
    for value in sorted(epochs):
        found.append(max(round(scale * value), found[-1] + 1 if found else 1))
    return found


def _thinned(spec: TuneSpec, name: str, scale: float) -> Dimension | dict[str, Any]:
    dimension = spec.search_space[name]
    if not isinstance(dimension, Grid):
        return dimension
    return {"type": "grid", "values": _kept(spec, dimension, scale)}


def _kept(spec: TuneSpec, dimension: Grid, scale: float) -> list[Value]:
    varying = sum(len(values) > 1 for values in grid_values(spec.search_space).values())
    return spread(dimension.values, round(len(dimension.values) * scale ** (1 / max(varying, 1))))
