"""Prediction with ONNX Runtime and numpy: no torch."""

import numpy as np
import onnxruntime

from ml.errors import CheckpointError
from ml.layers import Shape

MAX_BATCH = 64  # images a run: 1,024 at once leave the processor's cache and take the CNN four times longer an image


class Predictor:
    """A trained network that answers; safe to use from several threads."""

    def __init__(self, onnx: bytes, shape: Shape, classes: tuple[str, ...]) -> None:
        options = onnxruntime.SessionOptions()
        # One thread that does not spin: spinning threads starve whatever else runs on the machine.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise CheckpointError(f"the ONNX graph cannot be used ({error})") from error
        self.shape = shape
        self.classes = classes
        self._wanted = ["outputs", "novelty"][: len(self._session.get_outputs())]

    def run(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        """The network's outputs, float32 [n, classes], and how novel each image is, float32 [n].

        Pixels are [n, channels, height, width] in 0..1. No novelty where the graph does not compute it, as versions
        that were published before it was there do not.
        """
        pixels = pixels.astype(np.float32, copy=False)
        if len(pixels) <= MAX_BATCH:
            outputs, *novelty = self._session.run(self._wanted, {"pixels": pixels})
        else:
            parts = np.split(pixels, range(MAX_BATCH, len(pixels), MAX_BATCH))
            runs = [self._session.run(self._wanted, {"pixels": part}) for part in parts]
            outputs, *novelty = map(np.concatenate, zip(*runs, strict=True))
        return outputs, novelty[0] if novelty else None

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 [n, classes], uncalibrated, for pixels as `run` takes them."""
        return softmax(self.run(pixels)[0])


def softmax(outputs: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    powers = np.exp(outputs - outputs.max(-1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return probabilities
