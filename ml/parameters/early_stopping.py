"""Early stopping on the validation loss."""

from dataclasses import dataclass
from math import inf
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class EarlyStopping(BaseModel):
    """A rule that ends a trial before its last epoch."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    patience: int = Field(2, ge=1, le=1000, description="number of epochs without improvement that end the trial")
    min_delta: float = Field(1e-3, ge=0, description="decrease of the validation loss that counts as an improvement")
    rule: Literal["best", "previous"] = Field(
        "best",
        description="best: compare with the lowest loss so far; an improvement restores all patience. "
        "previous: compare with the previous epoch; nothing restores patience",
    )


@dataclass
class Patience:
    """The patience of one trial."""

    rule: EarlyStopping
    reference: float = inf  # the loss that the next loss is compared with
    spent: int = 0

    def ends(self, loss: float) -> bool:
        """Count one epoch's validation loss; return True if no patience is left."""
        improved = loss <= self.reference - self.rule.min_delta
        if not improved:
            self.spent += 1
        elif self.rule.rule == "best":
            self.spent = 0
        self.reference = loss if self.rule.rule == "previous" else min(self.reference, loss)
        return self.spent >= self.rule.patience
