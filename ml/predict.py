"""Prediction with ONNX Runtime and numpy: no torch."""

import numpy as np
import onnxruntime

from ml.errors import CheckpointError
from ml.layers import Shape


class Predictor:
    """A trained network that answers; safe to use from several threads."""

    def __init__(self, onnx: bytes, shape: Shape, classes: tuple[str, ...]) -> None:
        options = onnxruntime.SessionOptions()
        # One thread that does not spin: spinning threads starve whatever else runs on the machine.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.enable_cpu_mem_arena = False
        try:
            self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise CheckpointError(f"the ONNX graph cannot be used ({error})") from error
        self.shape = shape
        self.classes = classes

    def probabilities(self, pixels: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 [n, classes], for float32 pixels [n, channels, height, width] in 0..1."""
        (outputs,) = self._session.run(["outputs"], {"pixels": pixels.astype(np.float32, copy=False)})
        return softmax(outputs)


def softmax(outputs: np.ndarray) -> np.ndarray:
    """Probabilities along the last axis."""
    powers = np.exp(outputs - outputs.max(-1, keepdims=True))
    probabilities: np.ndarray = powers / powers.sum(-1, keepdims=True)
    return probabilities
