"""The replay of a trial: train it again, alone, from its record."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ml.records import RungResult
from ml.specs import TuneSpec
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack


@dataclass(frozen=True)
class Recipe:
    """The definition of a trial's solo run."""

    number: int
    params: dict[str, Any]  # all hyper-parameters, as trained
    init_seed: int
    stream_seed: int
    start_step: int
    until: int  # the last measured step, in tenths of an epoch


def replay(spec: TuneSpec, recipe: Recipe, data: TrainingData) -> Iterator[RungResult]:
    """Train a trial as it was trained, but alone; yield its measurements, rung by rung."""
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
