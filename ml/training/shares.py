"""The shares of a pack's time: each lane has as much of it as its own steps would take alone, compared with the others.

Steps of one lane alone are timed for the lightest and the heaviest networks that a process meets. Between these, the
time of the same kinds of layers grows with the FLOPs, because the bytes of weights and activations grow with them too.
"""

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ml.layers import flop_count
from ml.optimizers import Sgd
from ml.parameters.params import Params
from ml.specs import TuneSpec
from ml.training.augmentation import Augmentation
from ml.training.lane import TrainingData
from ml.training.timing import step_seconds

ENOUGH = 0.02  # seconds for which a step is timed
NEAR = 1.25  # the factor up to which FLOPs are near those of a network that was timed

Kind = tuple[object, ...]


@dataclass
class SoloTimes:
    """The times of a step alone, of the networks that this process has met."""

    timed: dict[Kind, list[tuple[int, float]]] = field(default_factory=dict)  # FLOPs of an image and seconds, in order

    def shares(self, spec: TuneSpec, data: TrainingData, params: Sequence[Params]) -> list[float]:
        """Return each lane's share of the time that they train together; the sum is 1.

        Args:
            spec: the job. By rules 1 all lanes have the same share.
            data: to train on.
            params: of each lane.
        """
        sizes = [(_kind(spec, data, own), flop_count(spec.layers(own), spec.image)) for own in params]
        if spec.rules == 1 or len(set(sizes)) == 1:
            return [1 / len(params)] * len(params)
        for kind in dict.fromkeys(kind for kind, _ in sizes):
            alike = sorted((flops, i) for i, (other, flops) in enumerate(sizes) if other == kind)
            for flops, i in (alike[0], alike[-1]):
                self._meet(kind, flops, spec, data, params[i])
        seconds = [self._seconds(kind, flops) for kind, flops in sizes]
        return [one / sum(seconds) for one in seconds]

    def _seconds(self, kind: Kind, flops: int) -> float:
        known, seconds = zip(*self.timed[kind], strict=True)
        return float(np.interp(flops, np.array(known), np.array(seconds)))

    def _meet(self, kind: Kind, flops: int, spec: TuneSpec, data: TrainingData, params: Params) -> None:
        """Time a network, unless its FLOPs are near or between those of networks that were timed."""
        timed = self.timed.setdefault(kind, [])
        if not timed or not timed[0][0] / NEAR <= flops <= NEAR * timed[-1][0]:
            insort(timed, (flops, step_seconds(spec, params, data, 1, ENOUGH)))


def _kind(spec: TuneSpec, data: TrainingData, params: Params) -> Kind:
    """Return all that the time of a step depends on, except the widths of layers."""
    optimizer = params.of_optimizer()
    moments = isinstance(optimizer, Sgd) and optimizer.momentum > 0
    layers = tuple(layer.kind for layer in spec.layers(params))
    average = params.ema_decay is not None
    lane = params.batch_size, layers, type(optimizer), moments, average, Augmentation.of(params)
    return lane, spec.loss, spec.image, len(data.train), str(data.device)


SOLO_TIMES = SoloTimes()  # of this process
