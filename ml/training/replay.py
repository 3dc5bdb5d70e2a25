"""A trial again, alone, from its record."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ml.records import RungResult
from ml.specs import TuneSpec
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack


@dataclass(frozen=True)
class Recipe:
    """What a trial's solo run is defined by."""

    number: int
    params: dict[str, Any]  # all of them, as trained
    init_seed: int
    stream_seed: int
    start_step: int
    until: int  # the step, in tenths of an epoch, at which it was measured last


def replay(spec: TuneSpec, recipe: Recipe, data: TrainingData) -> Iterator[RungResult]:
    """Train a trial as it was trained, but alone; what it measures, rung by rung."""
    params = spec.params(recipe.params)
    pack = LanePack.of(spec, data, params, recipe.stream_seed)
    pack.position = recipe.start_step
    lane = Lane(recipe.number, spec, params, recipe.init_seed, recipe.stream_seed)
    pack.join(lane)
    for rungs in pack.run(lambda: False):
        for _, measured in rungs:
            yield measured
            if measured.step >= recipe.until:
                return
