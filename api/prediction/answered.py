"""What a network answered: for a batch, and for the part of it that one question asked for."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

DIGITS = 6  # of a probability: float32 holds no more than seven


@dataclass(frozen=True)
class Batch:
    """Answers for n images; what is shown of them is made once for all questions, and only if it is shown."""

    probabilities: np.ndarray  # float32 [n, classes], calibrated
    reasons: list[str | None]  # why the network abstains

    @cached_property
    def labels(self) -> list[int]:
        """The most probable class of each image."""
        found: list[int] = self.probabilities.argmax(1).tolist()
        return found

    @cached_property
    def rounded(self) -> list[list[float]]:
        """The probabilities as they are shown."""
        found: list[list[float]] = np.round(self.probabilities.astype(np.float64), DIGITS).tolist()
        return found

    @cached_property
    def confidences(self) -> list[float]:
        """The probability of each image's label, as it is shown."""
        found: list[float] = np.round(self.probabilities.max(1).astype(np.float64), DIGITS).tolist()
        return found


@dataclass(frozen=True)
class Answered:
    """The images of a batch from `start` up to `stop`."""

    batch: Batch
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def labels(self) -> list[int]:
        """The most probable class of each image."""
        return self.batch.labels[self.start : self.stop]

    @property
    def rounded(self) -> list[list[float]]:
        """The probabilities as they are shown."""
        return self.batch.rounded[self.start : self.stop]

    @property
    def confidences(self) -> list[float]:
        """The probability of each image's label, as it is shown."""
        return self.batch.confidences[self.start : self.stop]

    @property
    def reasons(self) -> list[str | None]:
        """Why the network abstains, by image."""
        return self.batch.reasons[self.start : self.stop]
