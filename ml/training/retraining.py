"""Training again: several trials' hyper-parameters as one pack, on another cut and with other seeds, nothing pruned."""

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

Reached = Sequence[tuple[Lane, RungResult | None]]  # lanes at a rung; None for one that an error ended


@dataclass(frozen=True)
class Again:
    """A trial to be trained again, up to a step at which it is judged, whatever it reaches before."""

    number: int
    params: dict[str, Any]  # all hyper-parameters
    until: int | None  # tenths of an epoch


def trained_again(
    spec: TuneSpec,
    data: TrainingData,
    record: PackRecord,
    trials: Sequence[Again],
    cut_seed: int,
    interrupted: Callable[[LanePack], bool],
) -> Iterator[Reached]:
    """Train trials that share a key; yields the lanes that reached a rung, where they may have ended.

    Where `interrupted` is true nothing is yielded that reached a rung; training goes on when the next is asked for. A
    pack that was left goes on from its checkpoint, and what was yielded since then is yielded again. An error of any
    kind ends the lanes that are left: they have failed.
    """
    pack = _pack(spec, data, record, trials, cut_seed)
    try:
        yield from pack.run(lambda: interrupted(pack))
    except Exception as error:  # whatever a network or torch raises
        left = pack.running
        for lane in left:
            lane.end(TrialState.FAILED, f"{type(error).__name__}: {error}"[:2000])
        yield [(lane, None) for lane in left]


def predicted(lane: Lane, data: TrainingData) -> np.ndarray:
    """The labels, uint8 [n], that the judged weights of a lane give the validation images."""
    module = module_of(lane.spec.layers(lane.params), init_seed=0)
    module.load_state_dict(lane.best_weights)
    labels: np.ndarray = probabilities(module, data.validation.images.cpu()).argmax(1).astype(np.uint8)
    return labels


def _pack(spec: TuneSpec, data: TrainingData, record: PackRecord, trials: Sequence[Again], cut_seed: int) -> LanePack:
    if record.checkpoint is not None:
        return LanePack.resumed(record.checkpoint, data)
    built = [spec.params(trial.params) for trial in trials]
    pack = LanePack.of(spec, data, built[0], record.stream_seed)
    for trial, params in zip(trials, built, strict=True):
        init_seed = derive(cut_seed, SeedPurpose.INIT, trial.number)
        pack.join(Lane(trial.number, spec, params, init_seed, record.stream_seed, until=trial.until))
    return pack
