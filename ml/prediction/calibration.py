"""How far a version's answers can be trusted: numpy alone, as the API uses it at every request."""

import numpy as np
from pydantic import BaseModel

from ml.prediction.predictor import softmax

ECE_BINS = 15  # as Guo et al. (2017) count
NOVEL = "the image does not look like those that the network was trained on"
UNSURE = "no class is likely enough"


class Calibration(BaseModel, frozen=True, allow_inf_nan=False):
    """What was fitted to the outputs for the validation images, and how good it is. Errors are shares, 0..1."""

    temperature: float  # outputs are divided by it: above 1 the network was too sure of itself
    images: int = 0  # validation images it was fitted on
    ece: float = 0.0  # expected calibration error, each half of them judged with the temperature of the other half
    ece_uncalibrated: float = 0.0  # the same images with temperature 1
    novelty_limit: float | None = None  # abstain above it
    confidence_limit: float = 0.0  # abstain where the largest probability is below it
    abstained: float = 0.0  # share of the validation images that the limits abstain from
    class_shares: list[float] = []  # of the validation images, by predicted class
    test_images: int = 0
    test_ece: float | None = None
    test_ece_uncalibrated: float | None = None
    test_abstained: float | None = None

    def probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 [n, classes], for a network's outputs, float32 [n, classes]."""
        return softmax(outputs * np.float32(1 / self.temperature))

    def reasons(self, probabilities: np.ndarray, novelty: np.ndarray | None) -> list[str | None]:
        """Why it abstains from each image, None where it answers.

        `probabilities` as `probabilities()` gives them, [n, classes]; `novelty` as the graph does, [n], None where it
        gives none.
        """
        reasons: list[str | None] = [None] * len(probabilities)
        for i in (probabilities.max(1) < self.confidence_limit).nonzero()[0]:
            reasons[i] = UNSURE
        if self.novelty_limit is not None and novelty is not None:
            for i in (novelty > self.novelty_limit).nonzero()[0]:
                reasons[i] = NOVEL
        return reasons


UNCALIBRATED = Calibration(temperature=1.0)  # of a version that was published before there were calibrations


def calibration_error(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The expected calibration error, 0..1, of probabilities [n, classes] for labels [n].

    The mean distance between confidence and accuracy over bins of equal width, weighted by their images: Guo et al.,
    On Calibration of Modern Neural Networks (2017), equation 3.
    """
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    bins = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)  # each closed above
    gaps = np.bincount(bins, confidence - right, ECE_BINS)
    return float(np.abs(gaps).sum() / len(labels))
