"""What a network answered: for a batch, and for the part of it that one question asked for."""

from dataclasses import dataclass

import numpy as np

DIGITS = 6  # of a probability: float32 holds no more than seven


class BatchResult:
    """Answers for n images; what is shown of them is made once for all questions, and only if it is shown."""

    def __init__(self, probabilities: np.ndarray, reasons: list[str | None]) -> None:
        self.probabilities = probabilities  # float32 [n, classes], calibrated
        self.reasons = reasons  # why the network abstains, by image
        self.labels: list[int] = probabilities.argmax(1).tolist()  # the most probable class of each image
        self._rounded: list[list[float]] | None = None

    def part(self, rows: np.ndarray) -> "BatchResult":
        """Some of its images, by their places."""
        return BatchResult(self.probabilities[rows], [self.reasons[row] for row in rows.tolist()])

    @property
    def rounded(self) -> list[list[float]]:
        """The probabilities as they are shown."""
        if self._rounded is None:
            self._rounded = self.probabilities.astype(np.float64).round(DIGITS).tolist()
        return self._rounded

    @property
    def confidences(self) -> list[float]:
        """The probability of each image's label, as it is shown."""
        found: list[float] = self.probabilities.max(1).astype(np.float64).round(DIGITS).tolist()
        return found


@dataclass(slots=True)
class Answered:
    """The images of a batch from `start` up to `stop`."""

    batch: BatchResult
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def raw(self) -> np.ndarray:
        """The probabilities as they were computed, float32 [n, classes]."""
        return self.batch.probabilities[self.start : self.stop]

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
