"""Prediction with ONNX Runtime and numpy: no torch."""

import numpy as np
import onnxruntime

from ml.errors import CheckpointError
from ml.layers import Shape

MAX_BATCH = 64  # images per run; with 1,024 the CNN leaves the cache and takes four times longer per image


class Predictor:
    """A trained network as an ONNX session; safe to use from several threads."""

    def __init__(self, onnx: bytes, shape: Shape, classes: tuple[str, ...]) -> None:
        options = onnxruntime.SessionOptions()
        # One thread that does not spin: spinning threads starve all other work on the machine.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no common base class
            raise CheckpointError(f"the ONNX graph cannot be used ({error})") from error
        self.shape = shape
        self.classes = classes
        self._wanted = ["outputs", "novelty"][: len(self._session.get_outputs())]

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the network's outputs, float32 [n, classes], and each image's novelty, float32 [n].

        Args:
            pixels: [n, channels, height, width], 0..1.

        Returns:
            The outputs and the novelty; None for the novelty if the graph, of an older version, does not compute it.
        """
        pixels = pixels.astype(np.float32, copy=False)
        if len(pixels) <= MAX_BATCH:
            outputs, *novelty = self._session.run(self._wanted, {"pixels": pixels})
        else:
            batches = np.split(pixels, range(MAX_BATCH, len(pixels), MAX_BATCH))
            runs = [self._session.run(self._wanted, {"pixels": batch}) for batch in batches]
            outputs, *novelty = map(np.concatenate, zip(*runs, strict=True))
        return outputs, novelty[0] if novelty else None

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Return uncalibrated class probabilities, float32 [n, classes], for pixels as in `run`."""
        return softmax(self.run(pixels)[0])


def softmax(outputs: np.ndarray) -> np.ndarray:
    """Return the softmax along the last axis."""
    powers = np.exp(outputs - outputs.max(-1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return probabilities
