"""The fit of a calibration to what a network answers for validation images."""

import numpy as np

from ml.prediction.calibration import Calibration, calibration_error
from ml.prediction.predictor import softmax

NOVEL_SHARE, UNSURE_SHARE = 0.008, 0.002  # of the validation images, abstained from at most: 1 % together
MAX_LOG_TEMPERATURE = 7.0  # between e⁻⁷ and e⁷ lie networks that answer in 0..1 as well as those with huge outputs
HALVINGS = 20  # of 14, to 1e-5


def fit_temperature(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which outputs [n, classes] are likeliest for labels [n].

    Temperature scaling (Guo et al., 2017). The labels are smoothed by one image's worth, as Platt (1999) does: without
    that, outputs that are all right would have a temperature of 0. It is 1 where no class is told from another.
    """
    outputs = outputs.astype(np.float64)
    if np.ptp(outputs, axis=1).max() == 0:  # they say nothing, at any temperature
        return 1.0
    right = outputs[np.arange(len(labels)), labels].mean()
    smoothing = 1 / (len(labels) + 2)
    target = (1 - smoothing) * right + smoothing * outputs.mean()
    low, high = -MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        # The loss is convex in 1 / temperature, and this less the target is its derivative.
        expected = (softmax(outputs * np.exp(-middle)) * outputs).sum(1).mean()
        low, high = (middle, high) if expected > target else (low, middle)
    return float(np.exp((low + high) / 2))


def fit(outputs: np.ndarray, novelty: np.ndarray | None, labels: np.ndarray) -> Calibration:
    """The calibration for validation images: outputs [n, classes], novelty [n] or None, labels [n]."""
    bare = Calibration(temperature=fit_temperature(outputs, labels), images=len(labels))
    probabilities = bare.probabilities(outputs)
    limited = bare.model_copy(
        update={
            "ece": calibration_error(_crossfitted(outputs, labels), labels),
            "ece_uncalibrated": _uncalibrated_error(outputs, labels),
            "confidence_limit": -limit(-probabilities.max(1), UNSURE_SHARE),
            "novelty_limit": None if novelty is None else limit(novelty, NOVEL_SHARE),
            "class_shares": (np.bincount(outputs.argmax(1), minlength=outputs.shape[1]) / len(outputs)).tolist(),
        }
    )
    return limited.model_copy(update={"abstained": _abstained(limited, probabilities, novelty)})


def judged(
    calibration: Calibration, outputs: np.ndarray, novelty: np.ndarray | None, labels: np.ndarray
) -> Calibration:
    """The same, with what it comes to on test images; unchanged where an output for one of them is not finite."""
    if not np.isfinite(outputs).all():
        return calibration
    probabilities = calibration.probabilities(outputs)
    return calibration.model_copy(
        update={
            "test_images": len(labels),
            "test_ece": calibration_error(probabilities, labels),
            "test_ece_uncalibrated": _uncalibrated_error(outputs, labels),
            "test_abstained": _abstained(calibration, probabilities, novelty),
        }
    )


def limit(scores: np.ndarray, share: float) -> float:
    """The lowest of scores [n] that at most this share of them exceed."""
    beyond = int(share * len(scores) + 1e-9)  # how many may exceed it, where the product is a whole number as well
    return float(np.sort(scores)[-1 - beyond])


def _crossfitted(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities, each half of the images with the temperature of the other half."""
    probabilities = np.empty(outputs.shape, np.float32)
    halves = np.arange(0, len(labels), 2), np.arange(1, len(labels), 2)
    for fitted, others in (halves, halves[::-1]):
        temperature = fit_temperature(outputs[fitted], labels[fitted])
        probabilities[others] = Calibration(temperature=temperature).probabilities(outputs[others])
    return probabilities


def _uncalibrated_error(outputs: np.ndarray, labels: np.ndarray) -> float:
    return calibration_error(Calibration(temperature=1.0).probabilities(outputs), labels)


def _abstained(calibration: Calibration, probabilities: np.ndarray, novelty: np.ndarray | None) -> float:
    reasons = calibration.reasons(probabilities, novelty)
    return sum(reason is not None for reason in reasons) / len(reasons)
