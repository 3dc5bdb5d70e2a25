"""The fit of a calibration to a network's outputs for validation images."""

import numpy as np

from ml.prediction.calibration import Calibration, calibration_error
from ml.prediction.predictor import softmax

NOVEL_SHARE, UNSURE_SHARE = 0.008, 0.002  # of the validation images; together at most 1 % are abstained from
MAX_LOG_TEMPERATURE = 7.0  # e⁻⁷ to e⁷ covers outputs within 0..1 as well as huge ones
HALVINGS = 20  # of an interval of length 14, down to 1e-5


def fit_temperature(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that maximises the likelihood of labels [n] under outputs [n, classes].

    Temperature scaling (Guo et al., 2017). Labels are smoothed by the weight of one image, as in Platt (1999).
    Otherwise outputs that are all right would get a temperature of 0. The temperature is 1 if all outputs of every
    image are equal.
    """
    outputs = outputs.astype(np.float64)
    if np.ptp(outputs, axis=1).max() == 0:  # no temperature changes anything
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
    """Fit a calibration to validation images: outputs [n, classes], novelty [n] or None, labels [n]."""
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
    """Add the errors on test images to a calibration; it stays unchanged if an output is not finite."""
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
    """Return the lowest of scores [n] that at most `share` of the scores exceed."""
    beyond = int(share * len(scores) + 1e-9)  # how many may exceed it; 1e-9 keeps products that are whole numbers
    return float(np.sort(scores)[-1 - beyond])


def _crossfitted(outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return probabilities of each half of the images with the temperature of the other half."""
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
