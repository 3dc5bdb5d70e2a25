"""Retraining: several trials' hyper-parameters as one pack, with another data split and seeds, without pruning."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ml.network.evaluate import probabilities
from ml.network.modules import module_of
from ml.records import PackRecord, RungResult, TrialState
from ml.seeds import SeedPurpose, derive
from ml.specs import TuneSpec
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack

Reached = Sequence[tuple[Lane, RungResult | None]]  # lanes at a rung; None for a lane that an error ended


@dataclass(frozen=True)
class Retraining:
    """A trial to be trained again up to a step at which it is judged; earlier measurements do not count."""

    number: int
    params: dict[str, Any]  # all hyper-parameters
    until: int | None  # the step, in tenths of an epoch; None for its last


def retrain(
    spec: TuneSpec,
    data: TrainingData,
    record: PackRecord,
    trials: Sequence[Retraining],
    split_seed: int,
    interrupted: Callable[[LanePack], bool],
) -> Iterator[Reached]:
    """Train trials that share a key again.

    A pack that was left goes on from its checkpoint, and rungs since then are yielded again. An error of any kind ends
    the lanes that are left: they have failed.

    Args:
        spec: of the trials' job.
        data: to train on, split with `split_seed`.
        record: of the pack.
        trials: to train.
        split_seed: from which the initial weights are drawn too.
        interrupted: called before every step with the pack. If it returns true, an empty list is yielded, and training
            goes on with the next item.

    Yields:
        The lanes that reached a rung; they may have ended there.
    """
    pack = _pack(spec, data, record, trials, split_seed)
    try:
        yield from pack.run(lambda: interrupted(pack))
    except Exception as error:  # any error of a network or of torch
        left = pack.running
        for lane in left:
            lane.end(TrialState.FAILED, f"{type(error).__name__}: {error}"[:2000])
        yield [(lane, None) for lane in left]


def predicted(lane: Lane, data: TrainingData) -> np.ndarray:
    """Return the labels, uint8 [n], that a lane's best weights predict for the validation images."""
    module = module_of(lane.spec.layers(lane.params), init_seed=0)
    module.load_state_dict(lane.best_weights)
    labels: np.ndarray = probabilities(module, data.validation.images.cpu()).argmax(1).astype(np.uint8)
    return labels


def _pack(
    spec: TuneSpec, data: TrainingData, record: PackRecord, trials: Sequence[Retraining], split_seed: int
) -> LanePack:
    if record.checkpoint is not None:
        return LanePack.resumed(record.checkpoint, data, dataset=spec.dataset)
    built = [spec.params(trial.params) for trial in trials]
    pack = LanePack.of(spec, data, built[0], record.stream_seed)
    for trial, params in zip(trials, built, strict=True):
        init_seed = derive(split_seed, SeedPurpose.INIT, trial.number)
        pack.join(Lane(trial.number, spec, params, init_seed, record.stream_seed, until=trial.until))
    return pack
