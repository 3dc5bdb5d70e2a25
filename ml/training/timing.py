"""The time of training steps on this machine."""

from collections.abc import Callable
from time import perf_counter

from ml.datasets import Stream
from ml.lanes.lanes import Lanes, LaneState
from ml.parameters.params import Params
from ml.specs import TuneSpec
from ml.training.augmentation import Augmentation
from ml.training.distortion import Minibatches
from ml.training.lane import TrainingData

TIMING_SHARE = 0.001  # of a job's seconds, for each measurement


def step_seconds(spec: TuneSpec, params: Params, data: TrainingData, width: int, enough: float) -> float:
    """Return the time of a training step of `width` equal lanes together.

    Args:
        spec: the job.
        params: of each lane.
        data: to train on.
        width: the number of lanes.
        enough: seconds to measure for; less if the job has a limit of few seconds.
    """
    layers, optimizer = spec.layers(params), params.of_optimizer()
    states = [LaneState.initial(layers, optimizer, init_seed=0)] * width
    lanes = Lanes(states, spec.image, spec.loss, data.device, frozen=spec.frozen(layers))
    minibatches = Minibatches(data.train, Stream(len(data.train), params.batch_size, 0), Augmentation.of(params))

    def take(step: int) -> None:
        lanes.step(*minibatches.at(step))
        lanes.wait()

    for step in range(lanes.warm_steps):
        take(step)
    return fastest(take, min(enough, TIMING_SHARE * (spec.budget.seconds or float("inf"))))


def fastest(step: Callable[[int], None], seconds: float) -> float:
    """Return the seconds of the fastest of several steps, which other processes slow least.

    Args:
        step: takes step 0, 1, …
        seconds: of measuring; at least two steps are measured.
    """
    taken: list[float] = []
    while sum(taken) < seconds or len(taken) < 2:
        started = perf_counter()
        step(len(taken))
        taken.append(perf_counter() - started)
    return min(taken)
