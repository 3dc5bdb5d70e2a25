"""The width of a pack: the number of lanes that is fastest here, fits in memory, and leaves a search enough packs."""

from collections.abc import Callable, Sequence
from math import prod

import torch

from ml.errors import LanesError
from ml.lanes.lanes import EVALUATION_BATCH
from ml.layers import Layer, Shape, parameter_count, shapes, trains_alone
from ml.parameters.params import Params
from ml.parameters.space import List
from ml.specs import TuneSpec
from ml.training.lane import TrainingData
from ml.training.process import memory_at_hand
from ml.training.timing import step_seconds
from ml.tuning.keys import key_of

PACKS = 16  # the least packs of a job, without refills: a pack's trials share a key and are drawn before any has ended
GAIN = 0.95  # share of the time per lane that a wider pack must stay below to be chosen
TRIES = 2  # widths in a row without a gain, after which no wider one is tried
SECONDS = 0.1  # the longest for which a width is timed
MEMORY_SHARE = 0.5  # of the free memory; other trainers need the rest


def measured_width(spec: TuneSpec, params: Params, data: TrainingData) -> int:
    """Return the width that `spec` asks for, otherwise the narrowest of the fastest widths with these parameters."""
    if spec.lanes is not None:
        return min(spec.lanes, spec.trial_limit)
    if trains_alone(spec.layers(params)):
        return 1
    most = min(spec.trial_limit, max(2, spec.trial_limit // PACKS), _room(spec, heaviest(spec, params), data.device))
    widths = [2**k for k in range(max(1, most.bit_length()))]
    return worthwhile(widths, lambda width: step_seconds(spec, params, data, width, SECONDS) / width)


def worthwhile(widths: Sequence[int], seconds: Callable[[int], float]) -> int:
    """Return the narrowest of the fastest widths.

    No wider width is tried after two in a row without a gain, because a busy machine may spoil one measurement.

    Args:
        widths: in increasing order.
        seconds: measures a width; returns the time of a step, per lane.
    """
    found = {widths[0]: seconds(widths[0]) if widths[1:] else 0.0}
    spoiled = 0
    for width in widths[1:]:
        best = min(found.values())
        found[width] = seconds(width)
        spoiled = 0 if found[width] < GAIN * best else spoiled + 1
        if spoiled == TRIES:
            break
    return next(width for width in found if GAIN * found[width] <= min(found.values()))


def check_memory(spec: TuneSpec, params: Params, width: int, device: torch.device) -> int:
    """Return how many of `width` lanes memory holds, for any trials that may share a pack with these hyper-parameters.

    Raises:
        LanesError: if the specification asks for more lanes than that.
    """
    largest = heaviest(spec, params)
    room = _room(spec, largest, device)
    if spec.lanes is not None and width > max(1, room):
        needed = width * _bytes(spec, largest)
        raise LanesError(
            f"{width} lanes of {spec.model} take up to {needed / 2**30:.1f} GiB, and memory holds {room} of them; "
            "ask for fewer lanes, smaller batches or a smaller network"
        )
    return min(width, max(1, room))


def heaviest(spec: TuneSpec, params: Params) -> Params:
    """Return the hyper-parameters that take the most memory among those that may share a pack with the given ones.

    Lanes are padded to the widest. One dimension after another is set to its corner that takes the most memory.
    """
    key, found = key_of(spec, params), params
    for name, dimension in spec.search_space.items():
        for corner in dimension.corners():
            same_length = isinstance(dimension, List)  # the length of a list belongs to the key
            value = corner[:1] * len(getattr(found, name)) if same_length else corner
            try:
                other = spec.params(found.model_dump(exclude_none=True) | {name: value})
                if key_of(spec, other) == key and _bytes(spec, other) > _bytes(spec, found):
                    found = other
            except Exception:  # noqa: S112 - any error of a network: a trial that draws these values reports it
                continue
    return found


def bytes_of(layers: list[Layer], image: Shape, batch: int) -> int:
    """Return the approximate bytes of a lane: weights, gradients, two moments, activations forward and backward."""
    activations = sum(prod(shape) for shape in shapes(layers, image))
    return 4 * (4 * parameter_count(layers) + 2 * max(batch, EVALUATION_BATCH) * activations)


def _room(spec: TuneSpec, params: Params, device: torch.device) -> int:
    return int(MEMORY_SHARE * memory_at_hand(device) / _bytes(spec, params))


def _bytes(spec: TuneSpec, params: Params) -> int:
    layers = spec.layers(params)
    average = 0 if params.ema_decay is None else 4 * parameter_count(layers)
    return bytes_of(layers, spec.image, params.batch_size) + average
