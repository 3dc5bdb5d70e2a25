"""What a trial trains on, and what its training has come to: the lane."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from ml.datasets import Arrays, Dataset, SplitName, data_split, limited
from ml.errors import LanesError
from ml.lanes.lanes import LaneState
from ml.network.evaluate import Images
from ml.network.transfer import fresh, place_of
from ml.parameters.early_stopping import Patience
from ml.parameters.params import Params
from ml.parameters.recipes import LaneRecipe
from ml.records import STEPS_PER_EPOCH, RungResult, TrialState
from ml.seeds import SeedPurpose, derive
from ml.specs import TuneSpec


@dataclass(frozen=True)
class TrainingData:
    """The images that a trial trains and validates on, and what it begins with where that is not by its seed."""

    train: Images
    validation: Images
    initial: Mapping[str, Tensor] = field(default_factory=dict)  # weights that trials begin with, by torch's names

    @classmethod
    def load(cls, dataset: Dataset, split: SplitName, seed: int, device: str = "cpu") -> "TrainingData":
        """Read a registered data set, cut it and put it on a device; DataError where it is damaged."""
        return cls.of(dataset.load(), dataset.official_test, split, seed).to(device)

    @classmethod
    def of(cls, arrays: Arrays, official_test: int | None, split: SplitName, seed: int) -> "TrainingData":
        """Cut `arrays`; the test images are left out."""
        parts = data_split(len(arrays), official_test, split, seed)
        return cls(Images.of(arrays.take(parts.train)), Images.of(arrays.take(parts.validation)))

    def to(self, device: str) -> "TrainingData":
        """The same on another device."""
        return replace(self, train=self.train.to(device), validation=self.validation.to(device))

    def beginning_with(self, weights: Mapping[str, np.ndarray]) -> "TrainingData":
        """The same, for trials that begin with weights by torch's names."""
        return replace(self, initial={name: torch.from_numpy(array) for name, array in weights.items()})

    def first(self, images: int | None) -> "TrainingData":
        """The first so many of them, in the proportion of all; all of them where it is None. Nothing is copied."""
        train, validation = limited(len(self.train), len(self.validation), images)
        return TrainingData(self.train.first(train), self.validation.first(validation))

    @property
    def device(self) -> torch.device:
        """Where the images lie, and so where they are trained on."""
        return self.train.images.device


@dataclass
class Lane:
    """One trial in training: its solo run is defined by the seeds and the start step."""

    number: int
    spec: TuneSpec
    params: Params
    init_seed: int
    stream_seed: int
    start_step: int = 0
    slot: int = 0  # its position in the pack
    steps: int = 0  # taken
    rung: int = 0  # measured so far
    state: TrialState = TrialState.RUNNING
    reason: str = ""  # why it ended
    best: RungResult | None = None  # the best so far
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    loss: float = 0.0  # the sum over steps since it was last measured
    unmeasured: int = 0  # steps since then
    seconds: float = 0.0  # its share of the pack's time since then
    fresh: list[str] = field(default_factory=list)  # weights that are its own where it begins with another's
    recorded: dict[int, RungResult] = field(default_factory=dict)  # by step, where it is trained again: they stand
    until: int | None = None  # the step at which it ends and which alone may be its best; None: its last, and any

    @cached_property
    def patience(self) -> Patience | None:
        """The patience that it has left."""
        return Patience(self.spec.early_stopping) if self.spec.early_stopping else None

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The steps, in tenths of an epoch, at which it is measured."""
        return self.spec.rungs(self.params)

    @property
    def running(self) -> bool:
        """Whether it is still to be trained."""
        return self.state == TrialState.RUNNING

    def recipe(self, steps: int) -> LaneRecipe:
        """How it trains, where all its epochs take so many steps."""
        return LaneRecipe(
            self.params.schedule or "constant",
            steps,
            self.params.label_smoothing or 0.0,
            self.params.ema_decay,
            derive(self.init_seed, SeedPurpose.DROPOUT),
        )

    def initial(self, steps: int, given: Mapping[str, Tensor]) -> LaneState:
        """It before the first of its steps, with what fits of the weights given.

        LanesError where the specification names a version to begin with and it is not there, or has no weights for a
        layer that is to keep them.
        """
        layers = self.spec.layers(self.params)
        if self.spec.init_from is not None and not given:
            raise LanesError("the version to begin with is not at hand; post the job to a service that has it")
        self.fresh = fresh(layers, {name: tuple(tensor.shape) for name, tensor in given.items()}) if given else []
        if unknown := self.spec.frozen(layers) & {place_of(name) for name in self.fresh}:
            raise LanesError(f"layer {min(unknown)} cannot be frozen: the version to begin with has no such weights")
        return LaneState.initial(layers, self.params.of_optimizer(), self.init_seed, self.recipe(steps), given)

    def trained(self, steps: int, loss: float, seconds: float) -> None:
        """Count steps and their mean loss."""
        self.steps += steps
        self.unmeasured += steps
        self.loss += loss * steps
        self.seconds += seconds

    def measure(self, val_loss: float, val_accuracy: float, seconds: float) -> RungResult:
        """Its next rung, from its validation; the lane ends where it diverged, lost patience, or was trained enough."""
        step = self.rungs[self.rung]
        measured = self.recorded.get(step) or self._measured(step, val_loss, val_accuracy, seconds)
        self.rung += 1
        self.loss, self.unmeasured, self.seconds = 0.0, 0, 0.0
        whole = measured.step % STEPS_PER_EPOCH == 0
        if measured.train_loss is None or measured.val_loss is None:
            where = f"epoch {measured.epoch:g}"
            self.end(TrialState.DIVERGED, f"the loss was no longer finite in {where}; try a lower learning rate")
        elif self.rung == len(self.rungs):
            self.end(TrialState.COMPLETED, "all epochs done")
        elif self.until is not None:
            if step >= self.until:
                self.end(TrialState.COMPLETED, f"ends with epoch {measured.epoch:g}")
        elif whole and self.patience and self.patience.ends(measured.val_loss):
            self.end(TrialState.STOPPED_EARLY, f"no improvement of the validation loss up to epoch {measured.epoch:g}")
        return measured

    def _measured(self, step: int, val_loss: float, val_accuracy: float, seconds: float) -> RungResult:
        train_loss = self.loss / self.unmeasured
        return RungResult(
            step=step,
            images_seen=self.steps * self.params.batch_size,
            train_loss=train_loss if isfinite(train_loss) else None,
            val_loss=val_loss if isfinite(val_loss) else None,
            val_accuracy=val_accuracy if isfinite(train_loss) and isfinite(val_loss) else None,
            seconds=self.seconds + seconds,
        )

    def is_best(self, measured: RungResult) -> bool:
        """Whether no measurement was better; of equals the first is best."""
        value, best = objective(self.spec, measured), objective(self.spec, self.best)
        if self.until is not None and measured.step < self.until:
            return False
        return value is not None and (best is None or (value > best if self.spec.maximize else value < best))

    def end(self, state: TrialState, reason: str) -> None:
        """Take the lane out of training."""
        self.state, self.reason = state, reason


def objective(spec: TuneSpec, measured: RungResult | None) -> float | None:
    """What `spec` asks to be best, of one measurement; None where there is none."""
    if measured is None or not measured.finite:
        return None
    return measured.val_accuracy if spec.objective == "val_accuracy" else measured.val_loss
