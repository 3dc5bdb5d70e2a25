"""A winner's answers for the test images: confusion matrix, mistakes and calibration.

The network is not run again. Its outputs were stored when the test images were opened.
"""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from typing import cast

import numpy as np
from PIL import Image

from api.report.facts import Facts
from ml.datasets import Arrays, FindDataset, SplitName, data_split
from ml.errors import CheckpointError, DataError
from ml.prediction.calibration import ECE_BINS, UNCALIBRATED, Calibration
from worker.artifacts.store import Store
from worker.publication.rows import ANSWERS

MISTAKES = 24  # mistakes in the report, most confident first
MAX_SIDE = 128  # pixels of a picture's longer side


@dataclass(frozen=True)
class MistakenImage:
    """A misclassified test image."""

    truth: str
    answer: str
    confidence: float
    picture: str  # a data: URL


@dataclass(frozen=True)
class ConfidenceBin:
    """The test images in one range of confidence."""

    low: float
    high: float
    images: int
    confidence: float  # mean; 0 if the bin is empty
    accuracy: float  # 0 if the bin is empty


@dataclass(frozen=True)
class Answers:
    """A winner's answers for the test images."""

    classes: tuple[str, ...]
    confusion: list[list[int]]  # rows: true classes; columns: predicted classes
    mistakes: list[MistakenImage]
    bins: list[ConfidenceBin]

    @property
    def images(self) -> int:
        """The number of test images."""
        return sum(map(sum, self.confusion))

    @property
    def right(self) -> int:
        """The number of correct answers."""
        return sum(row[i] for i, row in enumerate(self.confusion))

    def recall(self, label: int) -> float | None:
        """Return the share of a class's images that were predicted as that class; None if the class has no image."""
        total = sum(self.confusion[label])
        return self.confusion[label][label] / total if total else None

    def precision(self, label: int) -> float | None:
        """Return the share of the images predicted as a class that belong to it; None if none was predicted."""
        total = sum(row[label] for row in self.confusion)
        return self.confusion[label][label] / total if total else None


def answers_of(facts: Facts, store: Store, find: FindDataset) -> Answers | None:
    """Return the winner's answers; None if its outputs were not stored or the test images are missing."""
    file, version = facts.files.get(ANSWERS), facts.version
    if file is None or version is None:
        return None
    try:
        outputs = np.load(BytesIO(store.read(file.path, file.sha256)), allow_pickle=False)
        test = _test_images(facts, find)
    except (CheckpointError, DataError):  # StorageAway passes through: a later request can still have the answers
        return None
    if test is None:
        return None
    calibration = Calibration(**version.calibration) if version.calibration else UNCALIBRATED
    return answered(outputs, test, tuple(version.classes), calibration)


def answered(outputs: np.ndarray, test: Arrays, classes: tuple[str, ...], calibration: Calibration) -> Answers:
    """Return the answers that the outputs give.

    Args:
        outputs: the network's outputs, float32 [n, classes].
        test: the n test images and their labels.
        classes: names of the classes by label.
        calibration: turns outputs into probabilities.

    """
    probabilities = calibration.probabilities(outputs)
    found = outputs.argmax(1)
    confusion = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(confusion, (test.labels, found), 1)
    confidence = probabilities.max(1).astype(np.float64)
    return Answers(
        classes,
        confusion.tolist(),
        _mistakes(found, confidence, test, classes),
        _bins(confidence, found == test.labels),
    )


def _test_images(facts: Facts, find: FindDataset) -> Arrays | None:
    """Return the test images of a job; None if the data set of this name has other images now."""
    dataset = find(facts.job.dataset)
    if dataset.sha256 != facts.job.dataset_sha256:
        return None
    arrays = dataset.load()
    split = cast("SplitName", facts.job.spec["split"])
    return arrays.take(data_split(len(arrays), dataset.official_test, split, seed=0).test)


def _mistakes(found: np.ndarray, confidence: np.ndarray, test: Arrays, classes: tuple[str, ...]) -> list[MistakenImage]:
    wrong = (found != test.labels).nonzero()[0]
    most_confident = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return [
        MistakenImage(classes[test.labels[i]], classes[found[i]], float(confidence[i]), picture(test.images[i]))
        for i in most_confident
    ]


def _bins(confidence: np.ndarray, right: np.ndarray) -> list[ConfidenceBin]:
    """Return the images by confidence in (low, high] bins, like `ml.prediction.calibration.calibration_error`."""
    places = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    images = np.bincount(places, minlength=ECE_BINS)
    sums = [np.bincount(places, weights, ECE_BINS) / np.maximum(images, 1) for weights in (confidence, right)]
    return [
        ConfidenceBin(i / ECE_BINS, (i + 1) / ECE_BINS, int(images[i]), float(sums[0][i]), float(sums[1][i]))
        for i in range(ECE_BINS)
    ]


def picture(image: np.ndarray) -> str:
    """Return an image, uint8 [channels, height, width], as a data: URL of a PNG.

    If it does not have 3 channels, the first channel is shown in grey. Large images are scaled down to `MAX_SIDE`,
    because a report holds many.
    """
    pixels = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    file = BytesIO()
    small = Image.fromarray(pixels)
    small.thumbnail((MAX_SIDE, MAX_SIDE))
    small.save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
