"""Evaluate jobs: a version on another data set than its own."""

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from support.prediction_tools import Predictions
from support.worker_tools import Work

from ml.datasets import Arrays, SplitName, data_split, datasets
from ml.images.resize import resized
from tests.api.tools import publish
from worker.artifacts.folder import FolderStore
from worker.database.tables import Job
from worker.errors import Conflict
from worker.prediction.image_sets import Subset
from worker.prediction.rows import PredictSpec, asked_version, check_other
from worker.uploaded_datasets import DatasetStore


@pytest.fixture
def predictions(work: Work, tmp_path: Path) -> Predictions:
    """Return a ledger with a folder of artifacts."""
    return Predictions(work, tmp_path / "artifacts")


def evaluated(predictions: Predictions, trained_on: str, dataset: str, subset: Subset = "test") -> Job:
    """Evaluate the champion of one data set on another; return the job as it ended."""
    version = asked_version(predictions.work.database, "perceptron", None, trained_on)
    how = {"subset": subset, "split": "random", "resize": "bilinear"}
    spec = PredictSpec(model="perceptron", version=version.version, dataset=dataset, **how)
    job = predictions.rows.accept(version, spec)
    predictions.run()
    return predictions.work.job(job)


@pytest.mark.parametrize(("trained_on", "dataset"), [("mnist", "digits"), ("digits", "mnist")])
def test_a_version_is_evaluated_on_the_test_images_of_another_data_set(
    predictions: Predictions, trained_on: str, dataset: str
) -> None:
    """The confusion matrix equals scikit-learn's on torch's answers, and the interval SciPy's."""
    version = publish(predictions.work, predictions.artifacts, dataset=trained_on)
    job = evaluated(predictions, trained_on, dataset)
    arrays = datasets[dataset].load()
    test = arrays.take(np.sort(data_split(len(arrays), None, "random", 0).test))
    with torch.inference_mode():
        found = version.module(torch.from_numpy(test.images).float() / 255).argmax(1).numpy()
    right = int((found == test.labels).sum())
    interval = binomtest(right, len(test)).proportion_ci(method="wilson")

    assert (job.state, job.kind, job.dataset) == ("completed", "evaluate", dataset)
    assert job.result is not None
    assert job.result["confusion_matrix"] == confusion_matrix(test.labels, found, labels=range(10)).tolist()
    assert job.result["accuracy"] == right / len(test)
    assert job.result["interval"] == pytest.approx([interval.low, interval.high])


@pytest.mark.parametrize(("subset", "openings"), [("test", 1), ("all", 1), ("train", 0)])
def test_opening_the_test_images_of_another_data_set_is_counted(
    predictions: Predictions, subset: Subset, openings: int
) -> None:
    """It counts as an opening of that data set, not of the version's own."""
    publish(predictions.work, predictions.artifacts)
    job = evaluated(predictions, "mnist", "digits", subset)
    found = predictions.openings(job.id)

    assert [(o.dataset_sha256, o.split) for o in found] == [(datasets["digits"].sha256, "random")] * openings


def test_another_image_size_and_another_order_of_classes_are_matched(predictions: Predictions, tmp_path: Path) -> None:
    """For an MNIST network, scikit-learn's 8×8 digits of five classes are resized and their classes matched by name."""
    version = publish(predictions.work, predictions.artifacts)
    digits = load_digits()
    five = digits.target < 5
    images = np.rint(digits.images[five] * (255 / 16)).astype(np.uint8)[:, None]
    labels = (4 - digits.target[five]).astype(np.uint8)
    uploaded = DatasetStore(predictions.work.database, FolderStore(predictions.artifacts), tmp_path / "cache")
    uploaded.add("five", Arrays(images, labels), tuple("43210"))
    job = evaluated(predictions, "mnist", "five@1", "all")
    with torch.inference_mode():
        pixels = torch.from_numpy(resized(images, 28, 28, "bilinear")).float() / 255
        found = version.module(pixels).argmax(1).numpy()

    assert job.result is not None
    assert job.result["accuracy"] == np.mean(found == digits.target[five])
    assert job.result["classes"] == list("0123456789")
    answers = predictions.answers(job.id)
    assert [answer["truth"] for answer in answers] == [str(digit) for digit in digits.target[five]]


def test_a_data_set_that_cannot_be_compared_is_refused(predictions: Predictions) -> None:
    """The version's own images, other channels, unknown classes and a missing split are refused."""
    publish(predictions.work, predictions.artifacts)
    version = asked_version(predictions.work.database, "perceptron", None, "mnist")
    digits = datasets["digits"]

    for dataset, split in [
        (datasets["mnist"], "random"),
        (replace(digits, shape=(3, 28, 28)), "random"),
        (replace(digits, classes=(*digits.classes, "a")), "random"),
        (digits, "official"),
    ]:
        with pytest.raises(Conflict):
            check_other(predictions.work.database, version, dataset, split, "test")


@pytest.mark.parametrize(
    ("subset", "split", "seen"),
    [("test", "random", False), ("test", "official", True), ("validation", "random", True), ("all", "random", True)],
)
def test_images_of_a_versions_origin_do_not_evaluate_it(
    predictions: Predictions, subset: Subset, split: SplitName, seen: bool
) -> None:
    """The version began with one that was trained on them; only the test images of that version's split are unseen."""
    publish(predictions.work, predictions.artifacts)
    for number in (1, 2):
        init_from = {"model": "perceptron", "version": number}
        fields = {"dataset": "digits", "init_from": init_from}
        publish(predictions.work, predictions.artifacts, value=0.9 + number / 100, **fields)
    version = asked_version(predictions.work.database, "perceptron", None, "digits")

    assert version.version == 3
    with pytest.raises(Conflict, match="perceptron 1, which was trained on these") if seen else nullcontext():
        check_other(predictions.work.database, version, datasets["mnist"], split, subset)
