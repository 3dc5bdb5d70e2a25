"""Calibration: temperature, calibration error and limits, each compared with an independent result."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from ml.lanes.lanes import Lanes, LaneState
from ml.networks import networks
from ml.optimizers import Adam
from ml.prediction.calibration import NOVEL, UNCALIBRATED, UNSURE, Calibration, calibration_error
from ml.prediction.calibration_fit import NOVEL_SHARE, UNSURE_SHARE, fit, fit_temperature, judged, limit
from ml.prediction.predictor import softmax
from ml.training.lane import TrainingData

temperatures = st.floats(0.05, 20)
seeds = st.integers(0, 2**32 - 1)
anything = arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(2, 12)), elements=st.floats(-1e3, 1e3, width=32))


def drawn(seed: int, n: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    """Return outputs, float32 [n, 10], and labels drawn with the probabilities of these outputs."""
    rng = np.random.default_rng(seed)
    outputs = rng.normal(0, 3, (n, 10)).astype(np.float32)
    cumulated = scipy_softmax(outputs, axis=1).cumsum(1)
    return outputs, (rng.random((n, 1)) > cumulated).sum(1).clip(0, 9)


@settings(deadline=None, max_examples=25)
@given(temperature=temperatures, seed=seeds)
def test_a_known_temperature_is_found(temperature: float, seed: int) -> None:
    """Outputs multiplied by a factor have that temperature, within six per cent for 4,000 labels."""
    outputs, labels = drawn(seed)
    found = fit_temperature(outputs * np.float32(temperature), labels)

    assert found == pytest.approx(temperature, rel=0.06)
    assert found / fit_temperature(outputs, labels) == pytest.approx(temperature, rel=1e-3)


@settings(deadline=None, max_examples=25)
@given(temperature=temperatures, seed=seeds)
def test_the_temperature_is_scipys_optimum(temperature: float, seed: int) -> None:
    """SciPy's search finds no temperature with a higher likelihood."""
    outputs, labels = drawn(seed, 500)
    outputs = outputs * temperature

    def loss(log_temperature: float) -> float:
        return -log_softmax(outputs / np.exp(log_temperature), axis=1)[np.arange(len(labels)), labels].mean()

    best = minimize_scalar(loss, bounds=(-7, 7), method="bounded")

    assert loss(np.log(fit_temperature(outputs, labels))) == pytest.approx(best.fun, abs=1e-4)


def test_outputs_that_are_equal_for_all_classes_have_temperature_1() -> None:
    """Every temperature fits equally well; 1 leaves the outputs unchanged."""
    assert fit_temperature(np.full((20, 10), 0.3, np.float32), np.arange(20) % 10) == 1


def test_confidence_stays_limited_if_all_outputs_are_right() -> None:
    """A network without a mistake on 100 images gets a confidence that 100 images can support."""
    labels = np.arange(100) % 10
    outputs = 5 * np.eye(10, dtype=np.float32)[labels]
    confidence = Calibration(temperature=fit_temperature(outputs, labels)).probabilities(outputs).max(1)

    assert ((confidence > 0.95) & (confidence < 0.9999)).all()


@settings(deadline=None)
@given(outputs=anything, temperature=temperatures)
def test_a_temperature_changes_no_answer(outputs: np.ndarray, temperature: float) -> None:
    """The most probable class stays the same, and probabilities are float32 with sum 1."""
    found = Calibration(temperature=temperature).probabilities(outputs)
    likeliest = outputs.argmax(1)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    np.testing.assert_array_equal(found[np.arange(len(found)), likeliest], found.max(1))


@settings(deadline=None)
@given(seed=seeds, n=st.integers(1, 300), sharpness=st.floats(0, 10))
def test_the_calibration_error_equals_a_count_by_hand(seed: int, n: int, sharpness: float) -> None:
    """The test computes the definition bin by bin."""
    rng = np.random.default_rng(seed)
    probabilities = scipy_softmax(sharpness * rng.normal(size=(n, 4)), axis=1)
    labels = rng.integers(4, size=n)
    error = 0.0
    for b in range(15):
        inside = [i for i in range(n) if b / 15 < max(probabilities[i]) <= (b + 1) / 15]
        if inside:
            accuracy = sum(probabilities[i].argmax() == labels[i] for i in inside) / len(inside)
            error += len(inside) / n * abs(accuracy - sum(max(probabilities[i]) for i in inside) / len(inside))

    assert calibration_error(probabilities, labels) == pytest.approx(error, abs=1e-9)


@pytest.mark.parametrize("factor", [0.2, 4.0])
def test_calibration_reduces_the_error_on_new_images(factor: float) -> None:
    """For over- and underconfident outputs, the error on new images falls below 0.03, as the fit predicts."""
    outputs, labels = drawn(1)
    fresh, their_labels = drawn(2)
    found = judged(fit(outputs * factor, None, labels), fresh * factor, None, their_labels)

    assert found.ece_uncalibrated > 0.1
    assert found.test_ece_uncalibrated > 0.1
    assert found.ece < 0.03
    assert found.test_ece < 0.03


def test_a_network_trained_on_squared_error_is_calibrated_too(digits_data: TrainingData) -> None:
    """Its outputs are near 0 and 1, not logits; a temperature far below 1 turns them into probabilities."""
    layers = networks["shallow"].layers((1, 28, 28), 10, networks["shallow"].params())
    lanes = Lanes([LaneState.initial(layers, Adam(), 0)], (1, 28, 28), "mse")
    rng = np.random.default_rng(0)
    for _ in range(300):
        lanes.step(digits_data.train, rng.integers(len(digits_data.train), size=32))
    validation = digits_data.validation
    outputs = lanes.outputs(validation, np.arange(len(validation)))[0].numpy()
    found = fit(outputs, None, validation.labels.numpy())

    assert 0.02 < found.temperature < 0.5
    assert found.ece_uncalibrated > 0.5
    assert found.ece < 0.05


@settings(deadline=None)
@given(
    scores=arrays(np.float32, st.integers(1, 400), elements=st.floats(-9, 9, width=32)),
    share=st.sampled_from([0, 0.002, 0.01, 0.3]),
)
def test_at_most_the_share_of_scores_lies_above_a_limit(scores: np.ndarray, share: float) -> None:
    """This holds with any number of equal scores, and no lower limit keeps to the share."""
    found = limit(scores, share)

    assert (scores > found).mean() <= share
    assert found in scores
    assert not (scores < found).any() or (scores > scores[scores < found].max()).mean() > share


@settings(deadline=None, max_examples=25)
@given(seed=seeds)
def test_a_version_abstains_from_at_most_one_per_cent_of_the_validation_images(seed: int) -> None:
    """Both limits together keep to this share, and the recorded share is that of `reasons`."""
    outputs, labels = drawn(seed, 1000)
    novelty = np.random.default_rng(seed).normal(size=1000).astype(np.float32)
    found = fit(outputs, novelty, labels)
    reasons = found.reasons(found.probabilities(outputs), novelty)

    assert pytest.approx(0.01) == NOVEL_SHARE + UNSURE_SHARE
    assert found.abstained == np.mean([reason is not None for reason in reasons])
    assert 0.005 < found.abstained <= 0.01


def test_the_share_of_each_predicted_class_is_kept() -> None:
    """A class that is never predicted has the share 0."""
    outputs = np.array([[2, 1, 0], [0, 0, 1], [3, 0, 0], [5, 4, 0]], np.float32)

    assert fit(outputs, None, np.array([0, 2, 1, 0])).class_shares == [0.75, 0, 0.25]


def test_the_reason_names_the_limit() -> None:
    """An image that is both novel and unsure is called novel."""
    calibration = Calibration(temperature=1, novelty_limit=2, confidence_limit=0.5)
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.45, 0.45], [0.45, 0.45]], np.float32)
    novelty = np.array([0, 2.5, 2, 3], np.float32)

    assert calibration.reasons(probabilities, novelty) == [None, NOVEL, UNSURE, NOVEL]
    assert calibration.reasons(probabilities, None) == [None, None, UNSURE, UNSURE]


@settings(deadline=None)
@given(outputs=anything)
def test_a_version_without_calibration_answers_as_before(outputs: np.ndarray) -> None:
    """Its probabilities are the softmax, bit for bit, and it abstains from nothing."""
    probabilities = UNCALIBRATED.probabilities(outputs)
    reasons = UNCALIBRATED.reasons(probabilities, np.full(len(outputs), 1e9, np.float32))

    np.testing.assert_array_equal(probabilities, softmax(outputs))
    assert reasons == [None] * len(outputs)


def test_a_calibration_survives_its_database_column() -> None:
    """JSON is read back equal, even by a release with more or fewer fields."""
    outputs, labels = drawn(3, 500)
    found = judged(fit(outputs, outputs[:, 0], labels), outputs, outputs[:, 0], labels)
    column = json.loads(json.dumps(found.model_dump()))

    assert Calibration.model_validate(column) == found
    assert Calibration.model_validate({**column, "of_tomorrow": 1}) == found
    assert Calibration.model_validate({"temperature": 2.0}).reasons(np.eye(2), None) == [None, None]


def test_test_outputs_that_are_not_finite_give_no_test_figures() -> None:
    """Such a network is published with its validation figures only."""
    outputs, labels = drawn(4, 200)
    found = fit(outputs, None, labels)

    assert judged(found, np.where(outputs > 5, np.inf, outputs), None, labels) == found
