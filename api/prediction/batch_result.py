"""A network's predictions: for a batch, and for one request's slice of it."""

from dataclasses import dataclass

import numpy as np

DIGITS = 6  # of a probability: float32 holds no more than seven


class BatchResult:
    """Predictions for n images; rounded values are computed once for all requests, and only if they are shown."""

    def __init__(self, probabilities: np.ndarray, reasons: list[str | None]) -> None:
        self.probabilities = probabilities  # float32 [n, classes], calibrated
        self.reasons = reasons  # why the network abstains, by image
        self.labels: list[int] = probabilities.argmax(1).tolist()  # the most probable class of each image
        self._rounded: list[list[float]] | None = None

    def subset(self, rows: np.ndarray) -> "BatchResult":
        """Return the predictions for some images, by their positions."""
        return BatchResult(self.probabilities[rows], [self.reasons[row] for row in rows.tolist()])

    @property
    def rounded(self) -> list[list[float]]:
        """The probabilities [n][classes] as they are shown."""
        if self._rounded is None:
            self._rounded = self.probabilities.astype(np.float64).round(DIGITS).tolist()
        return self._rounded

    @property
    def confidences(self) -> list[float]:
        """The probability of each image's label, as it is shown."""
        found: list[float] = self.probabilities.max(1).astype(np.float64).round(DIGITS).tolist()
        return found


@dataclass(slots=True)
class BatchSlice:
    """One request's predictions: the images of a batch from `start` up to `stop`."""

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
        """The probabilities [n][classes] as they are shown."""
        return self.batch.rounded[self.start : self.stop]

    @property
    def confidences(self) -> list[float]:
        """The probability of each image's label, as it is shown."""
        return self.batch.confidences[self.start : self.stop]

    @property
    def reasons(self) -> list[str | None]:
        """Why the network abstains, by image; None if it does not."""
        return self.batch.reasons[self.start : self.stop]


NO_PREDICTIONS = BatchSlice(BatchResult(np.empty((0, 1), np.float32), []), 0, 0)
