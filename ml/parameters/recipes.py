"""A lane's recipe: the training options that are not part of its layers or its optimizer."""

from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["constant", "cosine", "one_cycle"]  # see ml/kernels/schedules.py


@dataclass(frozen=True)
class LaneRecipe:
    """The training options of one lane; lanes with different recipes train as one module."""

    schedule: ScheduleName = "constant"
    steps: int = 1  # length of the schedule: the steps of all epochs
    label_smoothing: float = 0.0  # share of the target that is spread evenly over all classes
    ema_decay: float | None = None  # decay of the moving average of the weights; None: no average
    seed: int = 0  # for dropout


PLAIN = LaneRecipe()
