"""Publication by a trainer, and the calibration, test figures and speed of a version."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from support.trained_tools import Training
from support.worker_tools import Work, measurement

from ml.artifacts import save_checkpoint
from ml.datasets import datasets
from ml.errors import CheckpointError
from ml.lanes.lanes import Lanes, LaneState
from ml.layers import to_json
from ml.network.evaluate import evaluate
from ml.networks import networks
from ml.optimizers import Adam
from ml.prediction.calibration import Calibration, calibration_error
from ml.prediction.predictor import Predictor, softmax
from ml.records import Checkpoint, Finished, Measured, Started, TrialState
from worker.database.tables import Artifact, ModelVersion
from worker.publication.work import Candidate, publish
from worker.training.training_data import novelty_of, training_data
from worker.training.training_data import test_images as images_of_test

DATASET = datasets["digits"]


@dataclass(frozen=True)
class Outcome:
    """A stored version, with its calibration and its predictor."""

    version: ModelVersion
    calibration: Calibration
    predictor: Predictor


def trained(loss: str) -> Checkpoint:
    """Return the checkpoint of a shallow network after 300 steps on the small data set."""
    layers = networks["shallow"].layers(DATASET.shape, 10, networks["shallow"].params())
    lanes = Lanes([LaneState.initial(layers, Adam(), 0)], DATASET.shape, loss)
    data, rng = training_data(DATASET, "random", 0, "cpu").train, np.random.default_rng(0)
    for _ in range(300):
        lanes.step(data, rng.integers(len(data), size=32))
    weights = {name: tensor.numpy() for name, tensor in lanes.state(0).weights.items()}
    return Checkpoint(
        weights, {"layers": to_json(layers), "shape": list(DATASET.shape), "classes": list(DATASET.classes)}
    )


def published(work: Work, folder: Path, loss: str, images: int | None = None) -> Outcome:
    """Run a job up to its version, with the checkpoint of `trained` instead of training."""
    work.accept(model="shallow", loss=loss, budget={"trials": 1}, images=images)
    claim = work.leases.claim()
    assert claim is not None
    (record,) = work.reserved(claim)
    checkpoint, best = trained(loss), measurement(1, 0.9)
    path = f"{claim.job_id}/0.safetensors"
    saved = save_checkpoint(folder / path, checkpoint)
    finished = Finished(record.number, TrialState.COMPLETED, "all epochs", best, 0.9, checkpoint)
    started = Started(record.number, {}, {}, {}, 1, 2, 0)
    work.ledger.record(claim, [started, Measured(record.number, best, {}), finished], {record.number: (path, saved)})
    work.leases.close(claim)
    claim = work.leases.claim()
    assert claim is not None
    publish(claim, Training(work).bench)
    with work.database.reading() as session:
        version = session.scalars(select(ModelVersion)).one()
        graph = (folder / session.get_one(Artifact, version.onnx_id).path).read_bytes()
    return Outcome(
        version, Calibration.model_validate(version.calibration), Predictor(graph, DATASET.shape, DATASET.classes)
    )


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_version_has_its_calibration_and_speed(loss: str, work: Work, environment: Path) -> None:
    """The calibration fits the stored graph, the figures are of the test images, and the speed is measured."""
    found = published(work, environment, loss)
    test = images_of_test(DATASET, "random")
    outputs, novelty = found.predictor.run(test.images.numpy() / 255)
    probabilities = found.calibration.probabilities(outputs)
    reasons = found.calibration.reasons(probabilities, novelty)

    assert (found.calibration.images, found.calibration.test_images) == (323, 180)
    assert found.calibration.test_ece == calibration_error(probabilities, test.labels.numpy())
    assert found.calibration.test_ece_uncalibrated == calibration_error(softmax(outputs), test.labels.numpy())
    assert found.calibration.test_abstained == np.mean([reason is not None for reason in reasons])
    assert found.calibration.abstained <= 0.01
    assert (found.calibration.temperature < 0.5) == (loss == "mse")
    assert found.version.latency_seconds is not None
    assert 1e-6 < found.version.latency_seconds < 0.1


def test_a_version_abstains_from_images_without_a_digit(work: Work, environment: Path) -> None:
    """It abstains from blank images and noise with a reason, and from hardly any test image."""
    found = published(work, environment, "cross_entropy")
    others = np.concatenate([np.zeros((1, *DATASET.shape)), np.random.default_rng(0).random((20, *DATASET.shape))])
    outputs, novelty = found.predictor.run(others)
    reasons = found.calibration.reasons(found.calibration.probabilities(outputs), novelty)

    assert None not in reasons
    assert found.calibration.test_abstained is not None
    assert found.calibration.test_abstained < 0.1


def test_a_version_of_few_images_is_calibrated_on_few(work: Work, environment: Path) -> None:
    """Only the validation images of its limit count; the test uses all test images."""
    found = published(work, environment, "cross_entropy", images=400)

    assert (found.calibration.images, found.calibration.test_images) == (80, 180)


def test_the_test_figures_equal_torchs(work: Work, environment: Path) -> None:
    """Loss and accuracy on the test images equal those of the module that the checkpoint describes."""
    found = published(work, environment, "cross_entropy")
    candidate = Candidate.of(trained("cross_entropy"), novelty_of(DATASET, "random", 0, None))
    loss, accuracy = evaluate(candidate.module, images_of_test(DATASET, "random"), "cross_entropy")

    assert (found.version.test_loss, found.version.test_accuracy) == (pytest.approx(loss), pytest.approx(accuracy))


def test_a_graph_that_differs_from_torch_is_refused() -> None:
    """The check compares probabilities, and finds weights that differ by a thousandth."""
    candidate = Candidate.of(trained("cross_entropy"), novelty_of(DATASET, "random", 0, None))
    images = training_data(DATASET, "random", 0, "cpu").validation.images
    candidate.check(images)
    for weight in candidate.module.parameters():
        weight.data += 1e-3

    with pytest.raises(CheckpointError, match="differs from torch"):
        candidate.check(images)
