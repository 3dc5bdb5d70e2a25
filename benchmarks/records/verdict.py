"""The predictions of several models for the same images, and their accuracy."""

import base64
import zlib
from typing import Any

import numpy as np
from scipy import stats


def packed(labels: np.ndarray) -> str:
    """Return labels, uint8 [n], as text."""
    return base64.b64encode(zlib.compress(labels.tobytes(), 9)).decode()


def unpacked(text: str) -> np.ndarray:
    """Return the labels that `packed` has encoded."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def verdict(predicted: list[str], labels: np.ndarray) -> dict[str, Any]:
    """Return each model's accuracy (0..1), their mean, and its 95 % interval by Student's t over the models.

    The interval is for the mean of all such models on these images; a single model may lie further away. With only one
    model, the interval is None.

    Args:
        predicted: The labels that each model predicts, as `packed` encodes them.
        labels: The true labels, uint8 [n].
    """
    found = [float((unpacked(one) == labels).mean()) for one in predicted]
    mean = float(np.mean(found))
    interval = None
    if len(found) > 1:
        half = stats.t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / np.sqrt(len(found))
        interval = [mean - half, mean + half]
    return {"accuracies": found, "mean": mean, "interval": interval, "n": len(found), "images": len(labels)}
