"""The key of a trial: what those that train together as one pack must share.

The trials of a pack take the same minibatches through the same kinds of layer; their widths and their optimizers may
differ. The first trial of a pack settles its key and the others are drawn given it, so a search must know which of the
names it draws decide the key, and a grid walks its points one key after the other.
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

SHARED = ("batch_size", *AUGMENTATION_NAMES)  # what decides the minibatches
MAX_BASES = 8  # combinations of the other dimensions beside which one is probed


@dataclass(frozen=True)
class Key:
    """What the trials of a pack have in common."""

    batch_size: int
    kinds: tuple[str, ...]  # of the layers, in their order
    augmentation: Augmentation = NONE

    def __str__(self) -> str:
        distorted = f", {self.augmentation}" if self.augmentation else ""
        return f"batch {self.batch_size}, {'-'.join(self.kinds)}{distorted}"


def key_of(spec: TuneSpec, params: Params) -> Key:
    """The key of a trial with these hyper-parameters."""
    kinds = tuple(layer.kind for layer in spec.layers(params))
    return Key(params.batch_size, kinds, Augmentation.of(params))


def key_names(spec: TuneSpec) -> tuple[str, ...]:
    """The names, as Optuna knows them, whose values decide a trial's key."""
    drawn = [name for name in SHARED if name in spec.search_space and spec.search_space[name].contrasts(name)]
    return tuple(dict.fromkeys([*drawn, *kind_names(spec)]))


def kind_names(spec: TuneSpec) -> tuple[str, ...]:
    """The names whose values decide the kinds of layer, as far as the corners of the search space show."""
    bases = _bases(spec)
    return tuple(
        dict.fromkeys(
            drawn
            for name, dimension in spec.search_space.items()
            for contrast in dimension.contrasts(name)
            if _decides(spec, bases, name, contrast.values)
            for drawn in contrast.names
        )
    )


def _bases(spec: TuneSpec) -> list[dict[str, Any]]:
    """Combinations of corners: every dimension at its first, every one at its second, …"""
    corners = {name: dimension.corners() for name, dimension in spec.search_space.items()}
    count = min(MAX_BASES, max(map(len, corners.values()), default=1))
    return [{name: values[i % len(values)] for name, values in corners.items()} for i in range(count)]


def _decides(spec: TuneSpec, bases: list[dict[str, Any]], name: str, values: list[Any]) -> bool:
    """Whether these values of one dimension make different kinds of layer, or might: where no base tells, they do."""
    told = False
    for base in bases:
        found = {_kinds(spec, {**base, name: value}) for value in values}
        if len(found) > 1:
            return True
        told = told or found != {None}
    return not told


def _kinds(spec: TuneSpec, drawn: dict[str, Any]) -> tuple[str, ...] | None:
    """The kinds of layer; None where these values do not go together, as no trial may ever draw them."""
    try:
        return key_of(spec, spec.params(drawn)).kinds
    except Exception:  # whatever a network raises: this only asks, and what cannot be told is settled as a key
        return None


@dataclass(frozen=True)
class Partition:
    """How the trials of a job are divided among packs: any trial may join any pack, and takes over its key."""

    names: tuple[str, ...]  # those that decide the key

    def fixed(self, number: int, like: Mapping[str, Any]) -> dict[str, Any]:
        """What is settled of trial `number` before it is drawn, in a pack whose first trial drew `like`."""
        return {name: like[name] for name in self.names if name in like}

    def fits(self, number: int, like: Mapping[str, Any]) -> bool:
        """Whether trial `number` can join the pack whose first trial drew `like`."""
        return True


@dataclass(frozen=True, eq=False)
class GridPartition(Partition):
    """A grid in an order that keeps the points of a key together: a trial's number is its place, and settles all."""

    choices: dict[str, list[Scalar]]  # by name; a point is an index into each
    keys: np.ndarray  # a number for the key of each point, int64, as many axes as there are names
    order: np.ndarray  # the points in the order of the trials' numbers, int64 [points], each an index into keys.flat

    @classmethod
    def of(cls, spec: TuneSpec) -> "GridPartition":
        """The same for every job with these values, whatever its seed."""
        choices = dict(sorted(grid_values(spec.search_space).items()))
        keys = _grid_keys(spec, choices)
        shuffled = permutation(keys.size, 0)
        ranks = permutation(int(keys.max()) + 1, 0)  # keys are shuffled too
        order = shuffled[np.argsort(ranks[keys.flat[shuffled]], kind="stable")]
        return cls(tuple(choices), choices, keys, order)

    def fixed(self, number: int, like: Mapping[str, Any]) -> dict[str, Any]:
        if number >= self.order.size:
            return {}  # beyond its end the grid says nothing
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
    """A number for the key of each point of a grid, int64, one axis a name.

    Networks are built for combinations of the names that decide the kinds alone, so that a grid may be large.
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
