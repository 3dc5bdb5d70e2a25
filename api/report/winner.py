"""What a winner answered for the test images: its confusions, its mistakes, how far its confidence can be believed.

Nothing is computed again: the outputs were kept when the test images were opened.
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

MISTAKES = 24  # the most confident ones
LARGEST = 128  # pixels of a side of their pictures


@dataclass(frozen=True)
class TestMistake:
    """A test image that was taken for something else."""

    truth: str
    answer: str
    confidence: float
    picture: str  # a data: URL


@dataclass(frozen=True)
class ConfidenceBin:
    """Test images whose confidence lies in one range."""

    low: float
    high: float
    images: int
    confidence: float  # mean; 0 where there are none, as the next
    accuracy: float


@dataclass(frozen=True)
class Answers:
    """A winner's answers for the test images."""

    classes: tuple[str, ...]
    confusion: list[list[int]]  # a row a true class, a column a predicted one
    mistakes: list[TestMistake]
    bins: list[ConfidenceBin]

    @property
    def images(self) -> int:
        """How many."""
        return sum(map(sum, self.confusion))

    @property
    def right(self) -> int:
        """How many of them were told right."""
        return sum(row[i] for i, row in enumerate(self.confusion))

    def recall(self, label: int) -> float | None:
        """Of the images of a class, the share that was told right."""
        total = sum(self.confusion[label])
        return self.confusion[label][label] / total if total else None

    def precision(self, label: int) -> float | None:
        """Of the images that were taken for a class, the share that is of it."""
        total = sum(row[label] for row in self.confusion)
        return self.confusion[label][label] / total if total else None


def answers_of(facts: Facts, store: Store, find: FindDataset) -> Answers | None:
    """What the winner answered; None where it was not kept, or its images are not here."""
    file, version = facts.files.get(ANSWERS), facts.version
    if file is None or version is None:
        return None
    try:
        outputs = np.load(BytesIO(store.read(file.path, file.sha256)), allow_pickle=False)
        test = _test_images(facts, find)
    except (CheckpointError, DataError):  # storage that is away for a while is no reason for another report
        return None
    if test is None:
        return None
    calibration = Calibration(**version.calibration) if version.calibration else UNCALIBRATED
    return answered(outputs, test, tuple(version.classes), calibration)


def answered(outputs: np.ndarray, test: Arrays, classes: tuple[str, ...], calibration: Calibration) -> Answers:
    """What outputs, float32 [n, classes], come to for test images."""
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
    """The test images of a job; None where this data set has become another."""
    dataset = find(facts.job.dataset)
    if dataset.sha256 != facts.job.dataset_sha256:
        return None
    arrays = dataset.load()
    split = cast("SplitName", facts.job.spec["split"])
    return arrays.take(data_split(len(arrays), dataset.official_test, split, seed=0).test)


def _mistakes(found: np.ndarray, confidence: np.ndarray, test: Arrays, classes: tuple[str, ...]) -> list[TestMistake]:
    wrong = (found != test.labels).nonzero()[0]
    first = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return [
        TestMistake(classes[test.labels[i]], classes[found[i]], float(confidence[i]), picture(test.images[i]))
        for i in first
    ]


def _bins(confidence: np.ndarray, right: np.ndarray) -> list[ConfidenceBin]:
    """The images by confidence, in bins closed above, as `ml.prediction.calibration.calibration_error` counts them."""
    places = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    images = np.bincount(places, minlength=ECE_BINS)
    sums = [np.bincount(places, weights, ECE_BINS) / np.maximum(images, 1) for weights in (confidence, right)]
    return [
        ConfidenceBin(i / ECE_BINS, (i + 1) / ECE_BINS, int(images[i]), float(sums[0][i]), float(sums[1][i]))
        for i in range(ECE_BINS)
    ]


def picture(image: np.ndarray) -> str:
    """An image, uint8 [channels, height, width], as a data: URL of a PNG; of other than 3 channels the first.

    A large one is made smaller, as a report holds many.
    """
    pixels = np.moveaxis(image, 0, -1) if len(image) == 3 else image[0]
    file = BytesIO()
    small = Image.fromarray(pixels)
    small.thumbnail((LARGEST, LARGEST))
    small.save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"
