"""Prediction, compared with torch and SciPy."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax as scipy_softmax

from ml.datasets import Arrays, datasets
from ml.network.evaluate import probabilities, scaled
from ml.network.modules import module_of
from ml.network.onnx_graph import onnx_bytes
from ml.networks import networks
from ml.prediction.predictor import Predictor, softmax

outputs = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 12)), elements=st.floats(-1e4, 1e4, width=32))


def _predictor(model: str) -> tuple[Predictor, torch.nn.Module]:
    """Return a predictor with initial weights, and the torch module with the same weights."""
    dataset = datasets["digits"]
    layers = networks[model].layers(dataset.shape, len(dataset.classes), networks[model].params())
    module = module_of(layers, 11)
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    return Predictor(onnx_bytes(layers, weights, dataset.shape), dataset.shape, dataset.classes), module


@pytest.mark.parametrize("model", networks)
def test_probabilities_equal_torchs(model: str, digits: Arrays) -> None:
    """For the same pixels in 0..1 the predictor and the evaluation during training agree to 1e-5."""
    predictor, module = _predictor(model)
    images = torch.from_numpy(digits.images[:64].copy())
    found = predictor.probabilities(scaled(images).numpy())

    np.testing.assert_allclose(found, probabilities(module, images), atol=1e-5)


@pytest.mark.parametrize("model", networks)
def test_probabilities_are_in_range_and_sum_to_one(model: str, digits: Arrays) -> None:
    """Each image's probabilities are in 0..1 and sum to 1, one per class, in float32."""
    predictor, _ = _predictor(model)
    found = predictor.probabilities(digits.images[:64].astype(np.float32) / 255)

    assert found.shape == (64, len(predictor.classes))
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)


def test_float64_pixels_are_accepted(digits: Arrays) -> None:
    """Pixels in float64, as numpy's division returns them, give the same answer as in float32."""
    predictor, _ = _predictor("mlp")
    pixels = digits.images[:8] / 255

    np.testing.assert_array_equal(predictor.probabilities(pixels), predictor.probabilities(pixels.astype(np.float32)))


def test_an_answer_does_not_depend_on_its_neighbours(digits: Arrays) -> None:
    """An image gets the same answer alone and among others."""
    predictor, _ = _predictor("cnn")
    pixels = digits.images[:8].astype(np.float32) / 255
    alone = np.concatenate([predictor.probabilities(pixels[i : i + 1]) for i in range(8)])

    np.testing.assert_allclose(alone, predictor.probabilities(pixels), atol=1e-6)


def test_threads_may_share_a_predictor(digits: Arrays) -> None:
    """Eight threads at once get the answers that one thread gets."""
    predictor, _ = _predictor("cnn")
    pixels = digits.images[:64].astype(np.float32) / 255
    expected = [predictor.probabilities(pixels[i : i + 1]) for i in range(64)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: predictor.probabilities(pixels[i : i + 1]), range(64)))

    np.testing.assert_array_equal(found, expected)


@given(x=outputs)
def test_softmax_equals_scipys(x: np.ndarray) -> None:
    """Softmax along the last axis equals SciPy's, for outputs of any size that training can reach."""
    np.testing.assert_allclose(softmax(x), scipy_softmax(x.astype(np.float64), axis=-1), atol=2e-6)


def test_softmax_does_not_overflow() -> None:
    """Outputs near the limits of float32 give finite probabilities."""
    found = softmax(np.array([[3e38, 1e38, 0]], np.float32))

    assert found.tolist() == [[1, 0, 0]]
