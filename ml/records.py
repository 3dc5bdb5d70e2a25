"""What is recorded of a trial: the events that training gives off, and the record that a search is rebuilt from."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class TrialState(StrEnum):
    """Where a trial stands."""

    RUNNING = "running"  # drawn, and training or waiting to be resumed
    COMPLETED = "completed"  # trained for all its epochs
    PRUNED = "pruned"  # ended by the pruner
    STOPPED_EARLY = "stopped_early"  # ended by early stopping, or by the job's seconds after at least one epoch
    DIVERGED = "diverged"  # a loss was no longer finite
    FAILED = "failed"  # raised an error, or its trainer died
    CANCELLED = "cancelled"  # cut before it could be judged

    @property
    def judged(self) -> bool:
        """Whether the trial's best epoch may win the job."""
        return self in (TrialState.COMPLETED, TrialState.PRUNED, TrialState.STOPPED_EARLY)


STEPS_PER_EPOCH = 10  # a step of a rung is a tenth of an epoch

OUT_OF_TIME = "the job's seconds were spent"  # why a trial stopped early that the job's limit cut


def epochs_of(step: int) -> float:
    """Return the epochs that a step stands for."""
    return step / STEPS_PER_EPOCH


def step_of(epochs: float) -> int:
    """Return the step, in tenths of an epoch, that is nearest to a number of epochs."""
    return round(epochs * STEPS_PER_EPOCH)


class Stop(StrEnum):
    """Why running trials must end now."""

    SECONDS = "seconds"  # the job's time is up: what was measured counts
    CANCELLED = "cancelled"  # somebody asked
    RELEASED = "released"  # the pack is to go on later, here or elsewhere


@dataclass(frozen=True)
class RungResult:
    """One lane at one rung. A loss that is not finite is None."""

    step: int  # tenths of an epoch since the trial began
    images_seen: int
    train_loss: float | None  # mean over the epoch
    val_loss: float | None
    val_accuracy: float | None  # 0..1
    seconds: float  # training and evaluation of this epoch

    @property
    def epoch(self) -> float:
        """Epochs since the trial began."""
        return epochs_of(self.step)

    @property
    def finite(self) -> bool:
        """Whether both losses are numbers."""
        return self.train_loss is not None and self.val_loss is not None


@dataclass(frozen=True)
class Started:
    """A trial has its hyper-parameters."""

    number: int
    params: dict[str, Any]  # all of them, as trained
    suggestion: dict[str, Any]  # what was drawn, by Optuna's flat names
    attrs: dict[str, Any]  # what Optuna's sampler noted
    init_seed: int
    stream_seed: int
    start_step: int
    flops: int | None = None  # of one image's forward pass
    weights: int | None = None  # how many
    lane: int = 0  # the position in its pack that the trial's lane takes


@dataclass(frozen=True)
class Measured:
    """A trial has been measured."""

    number: int
    measurement: RungResult
    attrs: dict[str, Any]  # what Optuna's sampler and pruner have noted so far


@dataclass(frozen=True)
class Finished:
    """A trial has ended."""

    number: int
    state: TrialState
    reason: str  # why it ended, in words
    best: RungResult | None  # its best measurement, None where there is none
    value: float | None  # the objective of that
    checkpoint: "Checkpoint | None"  # the best epoch's weights, where the trial may win


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, float32, and what is needed to use them."""

    weights: dict[str, Any]  # numpy arrays
    card: dict[str, Any]  # JSON


Event = Started | Measured | Finished


@dataclass
class TrialRecord:
    """A trial as a search needs it to draw and prune the others."""

    number: int
    state: TrialState
    suggestion: dict[str, Any] | None = None  # None until it is drawn
    attrs: dict[str, Any] = field(default_factory=dict)
    values: dict[int, float] = field(default_factory=dict)  # the objective by step
    value: float | None = None  # the objective of the best epoch
    enqueued: dict[str, Any] | None = None  # what is settled before it is drawn, by flat names
    reason: str = ""  # why it ended
    start_step: int | None = None  # of its pack's stream; None until it begins
    rungs: dict[int, RungResult] = field(default_factory=dict)  # by step; of trials of a pack that is opened
    lane: int = 0  # its position in its pack, once it has begun


@dataclass
class PackRecord:
    """A pack as it was left: nothing but a reserved trial at first, later whatever it takes to go on with it."""

    stream_seed: int
    trials: list[TrialRecord]  # in the order of their numbers, those that have ended among them
    lanes: int = 1  # at once
    parted: bool = False  # made of another pack's trials: no more join
    checkpoint: Checkpoint | None = None
