"""Early stopping on the validation loss."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EarlyStopping(BaseModel):
    """When to end a trial before its epochs are spent."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    patience: int = Field(2, ge=1, le=1000, description="epochs without improvement that end the trial")
    min_delta: float = Field(1e-3, ge=0, description="how much lower the loss must be to count as improvement")
    rule: Literal["best", "previous"] = Field(
        "best",
        description="best: compare with the lowest loss so far, and an improvement restores patience; "
        "previous: compare with the epoch before, and nothing restores it",
    )


@dataclass
class Patience:
    """The patience that one trial has left."""

    rule: EarlyStopping
    reference: float = inf  # the loss that the next one is compared with
    spent: int = 0

    def ends(self, loss: float) -> bool:
        """Count one epoch's validation loss; True when patience is used up."""
        improved = loss <= self.reference - self.rule.min_delta
        if not improved:
            self.spent += 1
        elif self.rule.rule == "best":
            self.spent = 0
        self.reference = loss if self.rule.rule == "previous" else min(self.reference, loss)
        return self.spent >= self.rule.patience
