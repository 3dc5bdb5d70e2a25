"""A lane: one trial in training, and its training data."""

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
    """The images that a trial trains and validates on, and the weights of a version that it begins with, if any."""

    train: Images
    validation: Images
    initial: Mapping[str, Tensor] = field(default_factory=dict)  # weights that trials begin with, by torch's names

    @classmethod
    def load(cls, dataset: Dataset, split: SplitName, seed: int, device: str = "cpu") -> "TrainingData":
        """Read a registered data set, split it and move it to a device.

        Raises:
            DataError: if the data set is damaged.
        """
        return cls.of(dataset.load(), dataset.official_test, split, seed).to(device)

    @classmethod
    def of(cls, arrays: Arrays, official_test: int | None, split: SplitName, seed: int) -> "TrainingData":
        """Split `arrays`; the test images are left out."""
        indices = data_split(len(arrays), official_test, split, seed)
        return cls(Images.of(arrays.take(indices.train)), Images.of(arrays.take(indices.validation)))

    def to(self, device: str) -> "TrainingData":
        """Return these data on another device."""
        return replace(self, train=self.train.to(device), validation=self.validation.to(device))

    def beginning_with(self, weights: Mapping[str, np.ndarray]) -> "TrainingData":
        """Return these data for trials that begin with given weights, by torch's names."""
        return replace(self, initial={name: torch.from_numpy(array) for name, array in weights.items()})

    def first(self, images: int | None) -> "TrainingData":
        """Return the first `images` images, in the proportion of the whole split; nothing is copied.

        Args:
            images: to train and validate on together; None for all.
        """
        train, validation = limited(len(self.train), len(self.validation), images)
        return TrainingData(self.train.first(train), self.validation.first(validation))

    @property
    def device(self) -> torch.device:
        """The device of the images, on which they are trained."""
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
    place: int = 0  # its position in the pack
    steps: int = 0  # taken
    rung: int = 0  # number of measurements so far
    state: TrialState = TrialState.RUNNING
    reason: str = ""  # why it ended
    best: RungResult | None = None  # the best so far
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    loss: float = 0.0  # the sum over the steps since the last measurement
    unmeasured: int = 0  # steps since the last measurement
    seconds: float = 0.0  # its share of the pack's time since the last measurement
    fresh: list[str] = field(default_factory=list)  # weights that do not come from the version that it begins with
    recorded: dict[int, RungResult] = field(default_factory=dict)  # earlier measurements by step, which stand
    until: int | None = None  # if given, it ends at this step, and only this step may be its best

    @cached_property
    def patience(self) -> Patience | None:
        """The state of early stopping; None without it."""
        return Patience(self.spec.early_stopping) if self.spec.early_stopping else None

    @cached_property
    def rungs(self) -> tuple[int, ...]:
        """The steps at which it is measured, in tenths of an epoch."""
        return self.spec.rungs(self.params)

    @property
    def running(self) -> bool:
        """True if it still trains."""
        return self.state == TrialState.RUNNING

    def recipe(self, steps: int) -> LaneRecipe:
        """Return its training recipe; all its epochs together take `steps` steps."""
        return LaneRecipe(
            self.params.schedule or "constant",
            steps,
            self.params.label_smoothing or 0.0,
            self.params.ema_decay,
            derive(self.init_seed, SeedPurpose.DROPOUT),
        )

    def initial(self, steps: int, given: Mapping[str, Tensor]) -> LaneState:
        """Return the lane's state before its first step.

        Args:
            steps: of all its epochs together.
            given: the weights of the version to begin with, by torch's names; those that fit are used.

        Raises:
            LanesError: if the specification names a version to begin with, but `given` is empty or has no weights for
                a frozen layer.
        """
        layers = self.spec.layers(self.params)
        if self.spec.init_from is not None and not given:
            raise LanesError("the version to begin with is not available; post the job to a service that has it")
        self.fresh = fresh(layers, {name: tuple(tensor.shape) for name, tensor in given.items()}) if given else []
        if unknown := self.spec.frozen(layers) & {place_of(name) for name in self.fresh}:
            raise LanesError(f"layer {min(unknown)} cannot be frozen: the version to begin with has no such weights")
        return LaneState.initial(layers, self.params.of_optimizer(), self.init_seed, self.recipe(steps), given)

    def trained(self, steps: int, loss: float, seconds: float) -> None:
        """Add steps that were taken, their mean loss, and this lane's share of their seconds."""
        self.steps += steps
        self.unmeasured += steps
        self.loss += loss * steps
        self.seconds += seconds

    def measure(self, val_loss: float, val_accuracy: float, seconds: float) -> RungResult:
        """Return the measurement of the next rung, from the validation results.

        The lane ends if it diverged, ran out of patience, or was trained for all its epochs. A measurement that was
        recorded before is returned as it was.

        Args:
            val_loss: the loss on the validation images.
            val_accuracy: the accuracy on the validation images, 0..1.
            seconds: the time that the validation took for this lane.
        """
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
        """Return whether a measurement is better than all before; of equal ones the first is best."""
        value, best = objective(self.spec, measured), objective(self.spec, self.best)
        if self.until is not None and measured.step < self.until:
            return False
        return value is not None and (best is None or (value > best if self.spec.maximize else value < best))

    def end(self, state: TrialState, reason: str) -> None:
        """Take the lane out of training."""
        self.state, self.reason = state, reason


def objective(spec: TuneSpec, measured: RungResult | None) -> float | None:
    """Return the value of a measurement that `spec` optimises; None if there is no measurement or it is not finite."""
    if measured is None or not measured.finite:
        return None
    return measured.val_accuracy if spec.objective == "val_accuracy" else measured.val_loss
