"""Training: data, model, optimizer, loop, evaluation."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from time import perf_counter

import torch
from torch import Tensor, nn

from ml.datasets import Arrays, Dataset, SplitName, Stream, cut
from ml.early_stopping import Patience
from ml.evaluate import Images, evaluate, loss_of, scaled
from ml.lanes import module_of, optimizer_of
from ml.params import Params
from ml.records import Measurement, TrialState
from ml.samplers import STEPS_PER_EPOCH
from ml.specs import TuneSpec

CHECK_EVERY = 100  # steps between looks at the loss; each look costs a few microseconds, a lost epoch seconds


@dataclass(frozen=True)
class TrainingData:
    """The images that a trial trains and validates on."""

    train: Images
    validation: Images

    @classmethod
    def load(cls, dataset: Dataset, split: SplitName, seed: int) -> "TrainingData":
        """Read a registered data set and cut it; DataError where it is damaged."""
        return cls.of(dataset.load(), dataset.official_test, split, seed)

    @classmethod
    def of(cls, arrays: Arrays, official_test: int | None, split: SplitName, seed: int) -> "TrainingData":
        """Cut `arrays`; the test images are left out."""
        parts = cut(len(arrays), official_test, split, seed)
        return cls(Images.of(arrays.take(parts.train)), Images.of(arrays.take(parts.validation)))


@dataclass
class Lane:
    """One trial in training: its solo run is defined by the seeds and the start step."""

    number: int
    spec: TuneSpec
    params: Params
    init_seed: int
    stream_seed: int
    start_step: int = 0
    state: TrialState = TrialState.RUNNING
    reason: str = ""  # why it ended
    best: Measurement | None = None  # the best epoch so far
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def module(self) -> nn.Sequential:
        """The network, with its initial weights until it is trained."""
        return module_of(self.spec.layers(self.params), self.init_seed)

    def keep_if_best(self, measured: Measurement) -> None:
        """Remember the weights of this epoch if none was better; of equals the first stays."""
        value, best = objective(self.spec, measured), objective(self.spec, self.best)
        if value is not None and (best is None or (value > best if self.spec.maximize else value < best)):
            self.best = measured
            self.best_weights = copy.deepcopy(self.module.state_dict())

    def end(self, state: TrialState, reason: str) -> None:
        """Take the lane out of training."""
        self.state, self.reason = state, reason


def objective(spec: TuneSpec, measured: Measurement | None) -> float | None:
    """What `spec` asks to be best, of one measurement; None where there is none."""
    if measured is None or not measured.finite:
        return None
    return measured.val_accuracy if spec.objective == "val_accuracy" else measured.val_loss


def fit(lane: Lane, data: TrainingData, cut_now: Callable[[], bool]) -> Iterator[Measurement]:
    """Train a lane, one Measurement an epoch, until `lane.state` says how it ended.

    `cut_now` is asked before every step: where it is true the lane stops there, still running, without a measurement.
    The caller may close the generator to prune.
    """
    spec, params = lane.spec, lane.params
    stream = Stream(len(data.train), params.batch_size, lane.stream_seed)
    optimizer = optimizer_of(lane.module, params)
    patience = Patience(spec.early_stopping) if spec.early_stopping else None
    step = 0
    for epoch in range(1, spec.epochs(params) + 1):
        started = perf_counter()
        steps = range(step, stream.steps(epoch))
        train_loss, done = _train(lane, stream, steps, data.train, optimizer, cut_now)
        step += done
        if train_loss is None:
            return
        val_loss, val_accuracy = evaluate(lane.module, data.validation, spec.loss)
        images = step * params.batch_size
        measured = _measurement(epoch, images, train_loss, val_loss, val_accuracy, perf_counter() - started)
        lane.keep_if_best(measured)
        if not measured.finite:
            lane.end(TrialState.DIVERGED, f"the loss was no longer finite in epoch {epoch}; try a lower learning rate")
        elif epoch == spec.epochs(params):
            lane.end(TrialState.COMPLETED, "all epochs done")
        elif patience and patience.ends(val_loss):
            lane.end(TrialState.STOPPED_EARLY, f"no improvement of the validation loss up to epoch {epoch}")
        yield measured
        if lane.state != TrialState.RUNNING:
            return


def _train(
    lane: Lane,
    stream: Stream,
    steps: range,
    data: Images,
    optimizer: torch.optim.Optimizer,
    cut_now: Callable[[], bool],
) -> tuple[float | None, int]:
    """Train for `steps`; the mean loss, infinite or NaN where it diverged, None where it was cut; and steps done."""
    module, kind = lane.module, lane.spec.loss
    total = torch.zeros(())
    done = 0
    for step in steps:
        if cut_now():
            return None, done
        indices = torch.from_numpy(stream.batch(lane.start_step + step))
        outputs = module(scaled(data.images.index_select(0, indices)))
        loss = loss_of(kind, outputs, data.labels.index_select(0, indices))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += loss.detach()
        done += 1
        if done % CHECK_EVERY == 0 and not isfinite(total.item()):
            break
    return total.item() / done, done


def _measurement(
    epoch: int, images: int, train_loss: float, val_loss: float, val_accuracy: float, seconds: float
) -> Measurement:
    finite = isfinite(train_loss) and isfinite(val_loss)
    return Measurement(
        step=epoch * STEPS_PER_EPOCH,
        images_seen=images,
        train_loss=train_loss if isfinite(train_loss) else None,
        val_loss=val_loss if isfinite(val_loss) else None,
        val_accuracy=val_accuracy if finite else None,
        seconds=seconds,
    )
