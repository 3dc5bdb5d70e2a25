"""Calibration of a version's answers; only numpy is imported, as the API uses it in every request."""

import numpy as np
from pydantic import BaseModel

from ml.prediction.predictor import softmax

ECE_BINS = 15  # as in Guo et al. (2017)
NOVEL = "the image does not look like the training images"
UNSURE = "no class is likely enough"


class Calibration(BaseModel, frozen=True, allow_inf_nan=False):
    """The calibration fitted to the outputs for validation images, and its errors; shares are 0..1."""

    temperature: float  # outputs are divided by it; above 1 the network was overconfident
    images: int = 0  # validation images of the fit
    ece: float = 0.0  # expected calibration error, cross-fitted: each half uses the temperature of the other
    ece_uncalibrated: float = 0.0  # on the same images with temperature 1
    novelty_limit: float | None = None  # abstain above it
    confidence_limit: float = 0.0  # abstain if the highest probability is below it
    abstained: float = 0.0  # share of the validation images that the limits abstain from
    class_shares: list[float] = []  # share of the validation images by predicted class
    test_images: int = 0
    test_ece: float | None = None
    test_ece_uncalibrated: float | None = None
    test_abstained: float | None = None

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Return class probabilities, float32 [n, classes], for a network's outputs, float32 [n, classes]."""
        return softmax(outputs * np.float32(1 / self.temperature))

    def reasons(self, probabilities: np.ndarray, novelty: np.ndarray | None) -> list[str | None]:
        """Return for each image why the version abstains; None if it answers.

        Args:
            probabilities: [n, classes], from `probabilities()`.
            novelty: [n], from the graph; None if the graph does not compute it.
        """
        reasons: list[str | None] = [None] * len(probabilities)
        for i in (probabilities.max(1) < self.confidence_limit).nonzero()[0]:
            reasons[i] = UNSURE
        if self.novelty_limit is not None and novelty is not None:
            for i in (novelty > self.novelty_limit).nonzero()[0]:
                reasons[i] = NOVEL
        return reasons


UNCALIBRATED = Calibration(temperature=1.0)  # for versions that were published without a calibration


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the expected calibration error, 0..1, of probabilities [n, classes] for labels [n].

    It is the mean distance between confidence and accuracy over bins of equal width, weighted by the number of images:
    Guo et al., On Calibration of Modern Neural Networks (2017), equation 3.
    """
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)  # bins are closed above
    gaps = np.bincount(bins, confidence - right, ECE_BINS)
    return float(np.abs(gaps).sum() / len(labels))
