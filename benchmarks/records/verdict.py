"""What several models say of the same images, and how right they are."""

import base64
import zlib
from typing import Any

import numpy as np
from scipy import stats


def packed(said: np.ndarray) -> str:
    """Labels, uint8 [n], as text."""
    return base64.b64encode(zlib.compress(said.tobytes(), 9)).decode()


def unpacked(text: str) -> np.ndarray:
    """The labels that `packed` was given."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def verdict(said: list[str], labels: np.ndarray) -> dict[str, Any]:
    """Each model's accuracy (0..1), their mean, and its 95 % interval by Student's t over the models.

    The interval is for the mean of all such models on these very images, a single one may lie further off; it is None
    of a single one.
    """
    found = [float((unpacked(one) == labels).mean()) for one in said]
    mean = float(np.mean(found))
    interval = None
    if len(found) > 1:
        half = stats.t.ppf(0.975, len(found) - 1) * np.std(found, ddof=1) / np.sqrt(len(found))
        interval = [mean - half, mean + half]
    return {"accuracies": found, "mean": mean, "interval": interval, "n": len(found), "images": len(labels)}
