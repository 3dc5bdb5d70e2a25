"""Judgements on validation images, and samples of a data set."""

import json
import subprocess
import sys
from base64 import b64decode

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix

from ml.datasets import data_split, datasets
from ml.images.samples import Samples
from ml.network.modules import module_of
from ml.network.onnx_graph import onnx_bytes
from ml.networks import networks
from ml.prediction.calibration import Calibration, calibration_error
from ml.prediction.judgement import SHOWN, Judgement, JudgementOrder, judge

ORDER = JudgementOrder(dataset="digits", split="random", seed=3, calibration=Calibration(temperature=0.5))


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    """Return a perceptron with initial weights, which is mostly wrong."""
    return module_of(networks["perceptron"].layers((1, 28, 28), 10, networks["perceptron"].params()), init_seed=0)


@pytest.fixture(scope="module")
def graph(module: torch.nn.Module) -> bytes:
    """Return the perceptron as ONNX."""
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    layers = networks["perceptron"].layers((1, 28, 28), 10, networks["perceptron"].params())
    return onnx_bytes(layers, weights, (1, 28, 28))


@pytest.fixture(scope="module")
def judgement(graph: bytes) -> Judgement:
    """Return the judgement of the perceptron on the digits' validation images."""
    return judge(ORDER, datasets["digits"], graph)


@pytest.fixture(scope="module")
def expected(module: torch.nn.Module) -> tuple[np.ndarray, np.ndarray]:
    """Return torch's calibrated probabilities for the same images, and their labels."""
    digits = datasets["digits"].load()
    images = digits.take(data_split(len(digits), None, "random", ORDER.seed).validation)
    with torch.inference_mode():
        outputs = module(torch.from_numpy(images.images).float() / 255)
    return (outputs / 0.5).softmax(1).numpy(), images.labels


def test_the_confusion_matrix_equals_scikit_learns(
    judgement: Judgement, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    """Rows are true classes, columns predicted ones, over the validation images of the job's seed."""
    probabilities, labels = expected

    assert judgement.images == len(labels)
    assert np.array_equal(judgement.confusion_matrix, confusion_matrix(labels, probabilities.argmax(1)))


def test_the_bins_give_the_calibration_error(judgement: Judgement, expected: tuple[np.ndarray, np.ndarray]) -> None:
    """The gaps between confidence and accuracy, weighted by images, add up to the calibration error."""
    gaps = [b.images * abs(b.confidence - b.accuracy) for b in judgement.bins if b.confidence is not None]

    assert sum(b.images for b in judgement.bins) == judgement.images
    assert sum(gaps) / judgement.images == pytest.approx(calibration_error(*expected), abs=1e-6)


def test_the_mistakes_are_the_images_with_a_wrong_prediction(
    judgement: Judgement, expected: tuple[np.ndarray, np.ndarray]
) -> None:
    """They have their pixels, are sorted by confidence, and include at most SHOWN of each pair of classes."""
    digits = datasets["digits"].load()
    pairs = [(m.actual, m.predicted) for m in judgement.mistakes]
    counts = np.array(judgement.confusion_matrix)

    assert all(actual != predicted for actual, predicted in pairs)
    assert {pair: min(SHOWN, counts[pair]) for pair in set(pairs)} == {pair: pairs.count(pair) for pair in set(pairs)}
    assert len(set(pairs)) == (counts > 0).sum() - (counts.diagonal() > 0).sum()
    assert [m.confidence for m in judgement.mistakes] == sorted(
        (m.confidence for m in judgement.mistakes), reverse=True
    )
    for mistake in judgement.mistakes[:20]:
        assert b64decode(mistake.pixels) == digits.images[mistake.index].tobytes()
        assert digits.labels[mistake.index] == mistake.actual


def test_the_program_answers_as_the_function_does(graph: bytes, judgement: Judgement) -> None:
    """It reads standard input, writes standard output and needs no torch."""
    order = ORDER.model_dump_json().encode() + b"\n" + graph
    done = subprocess.run(
        [sys.executable, "-m", "ml.prediction.judgement"], input=order, capture_output=True, check=True
    )

    assert Judgement.model_validate_json(done.stdout) == judgement


def test_samples_are_of_the_requested_data_split() -> None:
    """Each image comes once, with label and pixels; a request for more than there are returns all of them."""
    command = [sys.executable, "-m", "ml.images.samples", "digits", "test", "1000"]
    done = subprocess.run(command, capture_output=True, check=True)
    found = Samples.model_validate(json.loads(done.stdout)).items
    digits = datasets["digits"].load()

    assert sorted(sample.index for sample in found) == sorted(
        data_split(len(digits), None, "random", seed=0).test.tolist()
    )
    for sample in found[:20]:
        assert sample.label == str(digits.labels[sample.index])
        assert b64decode(sample.pixels) == digits.images[sample.index].tobytes()
