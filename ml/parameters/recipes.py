"""A lane's recipe: how it trains beside what its layers and its optimizer say."""

from dataclasses import dataclass
from typing import Literal

ScheduleName = Literal["constant", "cosine", "one_cycle"]  # see schedules.py


@dataclass(frozen=True)
class LaneRecipe:
    """What is a lane's own, so that lanes with different recipes train as one."""

    schedule: ScheduleName = "constant"
    steps: int = 1  # over which the schedule runs: those of all its epochs
    label_smoothing: float = 0.0  # share of a target that all classes have in common
    ema_decay: float | None = None  # of the moving average of its weights; None: there is none
    seed: int = 0  # of its dropout


PLAIN = LaneRecipe()
