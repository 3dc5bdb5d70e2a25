"""The key of a trial: the properties that all trials of a pack must share.

The trials of a pack take the same minibatches through the same kinds of layer. Their widths and their optimizers may
differ. The first trial of a pack decides its key, and the others are drawn given that key. So a search must know which
of the drawn names decide the key, and a grid takes its points one key after the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from ml.parameters.params import Params
from ml.parameters.space import Scalar, grid_values
from ml.seeds import permutation
from ml.specs import TuneSpec
from ml.training.augmentation import AUGMENTATION_NAMES, NONE, Augmentation

SHARED = ("batch_size", *AUGMENTATION_NAMES)  # names that decide the minibatches
MAX_BASES = 8  # combinations of the other dimensions with which one dimension is probed


@dataclass(frozen=True)
class Key:
    """The properties that the trials of a pack share."""

    batch_size: int
    kinds: tuple[str, ...]  # of the layers, in order
    augmentation: Augmentation = NONE

    def __str__(self) -> str:
        distorted = f", {self.augmentation}" if self.augmentation else ""
        return f"batch {self.batch_size}, {'-'.join(self.kinds)}{distorted}"


def key_of(spec: TuneSpec, params: Params) -> Key:
    """Return the key of a trial with these hyper-parameters."""
    kinds = tuple(layer.kind for layer in spec.layers(params))
    return Key(params.batch_size, kinds, Augmentation.of(params))


def key_names(spec: TuneSpec) -> tuple[str, ...]:
    """Return the names, as Optuna knows them, whose values decide a trial's key."""
    drawn = [name for name in SHARED if name in spec.search_space and spec.search_space[name].contrasts(name)]
    return tuple(dict.fromkeys([*drawn, *kind_names(spec)]))


def kind_names(spec: TuneSpec) -> tuple[str, ...]:
    """Return the names whose values decide the kinds of layer, as far as the corners of the search space show."""
    bases = bases_of(spec)
    return tuple(
        dict.fromkeys(
            drawn
            for name, dimension in spec.search_space.items()
            for contrast in dimension.contrasts(name)
            if _decides(spec, bases, name, contrast.values)
            for drawn in contrast.names
        )
    )


def bases_of(spec: TuneSpec) -> list[dict[str, Any]]:
    """Return combinations of corners: every dimension at its first corner, every one at its second, …"""
    corners = {name: dimension.corners() for name, dimension in spec.search_space.items()}
    count = min(MAX_BASES, max(map(len, corners.values()), default=1))
    return [{name: values[i % len(values)] for name, values in corners.items()} for i in range(count)]


def _decides(spec: TuneSpec, bases: list[dict[str, Any]], name: str, values: list[Any]) -> bool:
    """Return whether these values of one dimension make different kinds of layer.

    If no base gives a network that can be built, the answer is yes, to be safe.
    """
    known = False
    for base in bases:
        found = {_kinds(spec, {**base, name: value}) for value in values}
        if len(found) > 1:
            return True
        known = known or found != {None}
    return not known


def _kinds(spec: TuneSpec, drawn: dict[str, Any]) -> tuple[str, ...] | None:
    """Return the kinds of layer; None if no network can be built from these values, which a trial may never draw."""
    try:
        return key_of(spec, spec.params(drawn)).kinds
    except Exception:  # any error of a network: this only probes, and an unknown result counts as another key
        return None


@dataclass(frozen=True)
class Partition:
    """The division of a job's trials among packs: any trial may join any pack, and adopts its key."""

    names: tuple[str, ...]  # that decide the key

    def fixed(self, number: int, like: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values that trial `number` has before it is drawn, in a pack whose first trial drew `like`."""
        return {name: like[name] for name in self.names if name in like}

    def fits(self, number: int, like: Mapping[str, Any]) -> bool:
        """Return whether trial `number` can join the pack whose first trial drew `like`."""
        return True


@dataclass(frozen=True, eq=False)
class GridPartition(Partition):
    """The division of a grid, whose order keeps the points of a key together.

    A trial's number is its place in this order, and so decides all its values.
    """

    choices: dict[str, list[Scalar]]  # by name; a point is an index into each
    keys: np.ndarray  # a number for the key of each point, int64, one axis for each name
    order: np.ndarray  # the points in the order of the trials' numbers, int64 [points], each an index into keys.flat

    @classmethod
    def of(cls, spec: TuneSpec) -> "GridPartition":
        """Return the division of a grid; it depends on the values of the grid, not on the seed."""
        choices = dict(sorted(grid_values(spec.search_space).items()))
        keys = _grid_keys(spec, choices)
        shuffled = permutation(keys.size, 0)
        ranks = permutation(int(keys.max()) + 1, 0)  # keys are shuffled too
        order = shuffled[np.argsort(ranks[keys.flat[shuffled]], kind="stable")]
        return cls(tuple(choices), choices, keys, order)

    def fixed(self, number: int, like: Mapping[str, Any]) -> dict[str, Any]:
        if number >= self.order.size:
            return {}  # beyond the end of the grid
        point = np.unravel_index(self.order[number], self.keys.shape)
        return {name: values[i] for (name, values), i in zip(self.choices.items(), point, strict=True)}

    def fits(self, number: int, like: Mapping[str, Any]) -> bool:
        return number < self.order.size and self._key(self.fixed(number, like)) == self._key(like)

    def _key(self, suggestion: Mapping[str, Any]) -> int:
        return int(self.keys[tuple(values.index(suggestion[name]) for name, values in self.choices.items())])


def partition_of(spec: TuneSpec) -> Partition:
    """Return how the trials of a job are divided among packs."""
    return GridPartition.of(spec) if spec.sampler.exhaustive else Partition(key_names(spec))


def _grid_keys(spec: TuneSpec, choices: dict[str, list[Scalar]]) -> np.ndarray:
    """Return a number for the key of each point of a grid, int64, one axis for each name.

    Networks are built only for combinations of the names that decide the kinds, so that a grid may be large.
    """
    deciding = set(kind_names(spec))
    values = {name: spec.search_space[name].corners() for name in choices}
    probed = {name: found if name in deciding else found[:1] for name, found in values.items()}
    fixed = {name: dimension.corners()[0] for name, dimension in spec.search_space.items() if name not in choices}
    numbers: dict[tuple[str, ...] | None, int] = {}
    kinds = [
        numbers.setdefault(_kinds(spec, fixed | dict(zip(probed, point, strict=True))), len(numbers))
        for point in product(*probed.values())
    ]
    keys = np.array(kinds).reshape([len(found) for found in probed.values()])
    count = len(numbers)
    for shared in (name for name in SHARED if name in choices):
        axis = [-1 if name == shared else 1 for name in choices]
        keys = keys + count * np.arange(len(values[shared])).reshape(axis)
        count *= len(values[shared])
    return np.broadcast_to(keys, [len(found) for found in values.values()])
