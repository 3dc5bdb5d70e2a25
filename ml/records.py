"""Records of trials: the events that training emits, and the record that a search is rebuilt from."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class TrialState(StrEnum):
    """The state of a trial."""

    RUNNING = "running"  # drawn, and now training or waiting to be resumed
    COMPLETED = "completed"  # trained for all its epochs
    PRUNED = "pruned"  # ended by the pruner
    STOPPED_EARLY = "stopped_early"  # ended by early stopping, or by the job's time limit after at least one epoch
    DIVERGED = "diverged"  # a loss became infinite or NaN
    FAILED = "failed"  # it raised an error, or its trainer died
    CANCELLED = "cancelled"  # ended before it was measured, or on request

    @property
    def judged(self) -> bool:
        """True if the trial's best epoch may win the job."""
        return self in (TrialState.COMPLETED, TrialState.PRUNED, TrialState.STOPPED_EARLY)


STEPS_PER_EPOCH = 10  # rungs are counted in steps of a tenth of an epoch

OUT_OF_TIME = "the job's seconds were spent"  # the reason of trials that the job's time limit ended


def epochs_of(step: int) -> float:
    """Return the number of epochs at a step."""
    return step / STEPS_PER_EPOCH


def step_of(epochs: float) -> int:
    """Return the step, in tenths of an epoch, that is nearest to a number of epochs."""
    return round(epochs * STEPS_PER_EPOCH)


class Stop(StrEnum):
    """The reasons why running trials must end now."""

    SECONDS = "seconds"  # the job's time is up; measurements so far count
    CANCELLED = "cancelled"  # on request
    RELEASED = "released"  # the pack continues later, on this or another worker


@dataclass(frozen=True)
class RungResult:
    """The measurements of one lane at one rung; a loss that is not finite is None."""

    step: int  # tenths of an epoch since the trial began
    images_seen: int
    train_loss: float | None  # mean over the epoch
    val_loss: float | None
    val_accuracy: float | None  # 0..1
    seconds: float  # that training and evaluating this epoch took

    @property
    def epoch(self) -> float:
        """The number of epochs since the trial began."""
        return epochs_of(self.step)

    @property
    def finite(self) -> bool:
        """True if both losses are finite."""
        return self.train_loss is not None and self.val_loss is not None


@dataclass(frozen=True)
class Started:
    """The event that a trial has its hyper-parameters."""

    number: int
    params: dict[str, Any]  # all of them, as trained
    suggestion: dict[str, Any]  # the values that were drawn, by Optuna's flat names
    attrs: dict[str, Any]  # notes of Optuna's sampler
    init_seed: int
    stream_seed: int
    start_step: int
    flops: int | None = None  # of one image's forward pass
    weights: int | None = None  # their number
    lane: int = 0  # the position in its pack that the trial's lane takes


@dataclass(frozen=True)
class Measured:
    """The event that a trial has been measured."""

    number: int
    measurement: RungResult
    attrs: dict[str, Any]  # notes of Optuna's sampler and pruner so far


@dataclass(frozen=True)
class Finished:
    """The event that a trial has ended."""

    number: int
    state: TrialState
    reason: str  # why it ended
    best: RungResult | None  # its best measurement; None if it has none
    value: float | None  # the objective at the best measurement
    checkpoint: "Checkpoint | None"  # the best epoch's weights; None if the trial cannot win


@dataclass(frozen=True)
class Checkpoint:
    """Weights by name, float32, and a card that says how to use them."""

    weights: dict[str, Any]  # numpy arrays
    card: dict[str, Any]  # JSON


Event = Started | Measured | Finished


@dataclass
class TrialRecord:
    """A trial, with what a search needs to draw and prune other trials."""

    number: int
    state: TrialState
    suggestion: dict[str, Any] | None = None  # None until it is drawn
    attrs: dict[str, Any] = field(default_factory=dict)
    values: dict[int, float] = field(default_factory=dict)  # the objective by step
    value: float | None = None  # the objective of the best epoch
    enqueued: dict[str, Any] | None = None  # values fixed before the draw, by flat names
    reason: str = ""  # why it ended
    start_step: int | None = None  # of its pack's stream; None until it begins
    rungs: dict[int, RungResult] = field(default_factory=dict)  # by step; of trials of a pack that is opened
    lane: int = 0  # its position in its pack, once it has begun


@dataclass
class PackRecord:
    """A pack as it was left; a new one has a reserved trial, a begun one all that is needed to continue."""

    stream_seed: int
    trials: list[TrialRecord]  # by number, ended ones included
    lanes: int = 1  # trials at once
    parted: bool = False  # split off from another pack; no more trials join
    checkpoint: Checkpoint | None = None
