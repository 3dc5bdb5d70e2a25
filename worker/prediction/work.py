"""The work of a predict or evaluate job: classify many images with a version."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import orjson
from pydantic import BaseModel

from ml.canonical.canonical import canonical
from ml.canonical.frame import form_of
from ml.datasets import digit_of
from ml.images.resize import resized
from ml.prediction.calibration import UNCALIBRATED, Calibration
from ml.prediction.predictor import Predictor
from ml.statistics.intervals import wilson
from worker.artifacts.new_files import NewFiles
from worker.artifacts.store import Store
from worker.ledger.leases import Claim
from worker.prediction.image_sets import UNKNOWN, ImageSet, Subset, in_unit
from worker.prediction.rows import PredictionRows, PredictionTask
from worker.training.workbench import Workbench

BATCH = 512  # images between two looks at the supervisor's orders: less than a second's work even for the CNN
DIGITS = 6  # of a probability, as /predict shows it

Answer = dict[str, Any]  # a line of the results


class Result(BaseModel):
    """The result of a predict job. Accuracy counts the most probable class, even if the version abstained."""

    images: int  # unusable ones included
    unusable: int
    abstained: int
    labelled: int  # number of images whose class is known
    accuracy: float | None  # share of the labelled images, 0..1
    interval: tuple[float, float] | None = None  # the accuracy's 95 % confidence interval
    confusion_matrix: (
        list[list[int]] | None
    )  # of the labelled images: a row for each true class, a column for each predicted one
    classes: list[str]


class Answering:
    """A version that classifies images, and the counts for the result."""

    def __init__(self, predictor: Predictor, calibration: Calibration) -> None:
        self.predictor = predictor
        self.calibration = calibration
        self.abstained = 0
        classes = len(predictor.classes)
        self.confusion = np.zeros((classes, classes), np.int64)  # by true and by predicted class

    def answers(self, images: ImageSet, in_form: bool, ids: dict[int, str]) -> Iterator[tuple[int, Answer]]:
        """Yield each image's place and answer.

        Args:
            images: To classify.
            in_form: Bring them to the data set's own form first.
            ids: The sender's names, by place.
        """
        pixels = _in_form(in_unit(images.pixels)) if in_form else in_unit(images.pixels)
        outputs, novelty = self.predictor.run(pixels)
        probabilities = self.calibration.probabilities(outputs)
        reasons = self.calibration.reasons(probabilities, novelty)
        found = probabilities.argmax(1)
        self._count(images.labels, found, reasons)
        confidences = probabilities.max(1).astype(np.float64).round(DIGITS).tolist()
        for place, label, confidence, reason, truth in zip(
            images.places.tolist(), found.tolist(), confidences, reasons, images.labels.tolist(), strict=True
        ):
            yield place, self._answer(place, ids.get(place), label, confidence, reason, truth)

    def result(self, images: ImageSet) -> Result:
        """Return the result over all images that were classified."""
        labelled, right = int(self.confusion.sum()), int(self.confusion.trace())
        return Result(
            images=images.count,
            unusable=len(images.errors),
            abstained=self.abstained,
            labelled=labelled,
            accuracy=right / labelled if labelled else None,
            interval=wilson(right, labelled) if labelled else None,
            confusion_matrix=self.confusion.tolist() if labelled else None,
            classes=list(self.predictor.classes),
        )

    def _count(self, labels: np.ndarray, found: np.ndarray, reasons: list[str | None]) -> None:
        known = labels != UNKNOWN
        np.add.at(self.confusion, (labels[known], found[known]), 1)
        self.abstained += sum(reason is not None for reason in reasons)

    def _answer(
        self, place: int, id_: str | None, label: int, confidence: float, reason: str | None, truth: int
    ) -> Answer:
        classes = self.predictor.classes
        name = classes[label]
        return {
            "index": place,
            **({} if id_ is None else {"id": id_}),
            "label": name,
            "digit": digit_of(name),
            "confidence": confidence,
            "abstained": reason is not None,
            "reason": reason,
            **({} if truth == UNKNOWN else {"truth": classes[truth]}),
        }


def predict(claim: Claim, bench: Workbench) -> bool:
    """Classify the images of a claimed pack's job, write the answers down and end the job.

    Returns:
        False if the pack must stop before all images are classified. Nothing is kept then: to do it again takes
        seconds.

    Raises:
        LeaseLost: if another worker has claimed the pack or the job was cancelled.
    """
    rows = PredictionRows(bench.database)
    work = rows.work(claim)
    images = _images(claim, work, rows, bench)
    answering = _answering(work, bench.store)
    lines = {place: orjson.dumps(answer) for place, answer in _unusable(images).items()}
    for batch in images.batches(BATCH):
        if bench.orders.stop is not None:
            return False
        found = answering.answers(_at_size(batch, work), work.spec.canonical, images.ids)
        lines |= {place: orjson.dumps(answer) for place, answer in found}
    content = b"".join(lines[place] + b"\n" for place in sorted(lines))
    # Pack and epoch in the path keep two claims from writing the same file.
    path = f"{claim.job_id}/predictions.{claim.pack_id}.{claim.epoch}.jsonl"
    with NewFiles(bench.store) as files:
        rows.finish(claim, files.write(path, content), answering.result(images).model_dump())
    return True


def _images(claim: Claim, work: PredictionTask, rows: PredictionRows, bench: Workbench) -> ImageSet:
    """Return the images to classify; an opening of test images is recorded before."""
    if work.upload is not None:
        return ImageSet.of_bytes(bench.store.read(work.upload.path, work.upload.sha256), work.upload.path)
    if work.spec.opens_test:
        rows.open_test(claim, work.version, work.split)
    subset = cast("Subset", work.spec.subset)  # a job without an upload names one
    dataset = bench.find(work.spec.dataset)
    images = ImageSet.of_dataset(dataset, subset, work.split, work.seed, work.images)
    return _renumbered(images, dataset.classes, work.version.classes) if work.spec.evaluates else images


def _renumbered(images: ImageSet, classes: Sequence[str], known: list[str]) -> ImageSet:
    """Return images of another data set with their labels as the version numbers its classes."""
    numbers = np.array([known.index(name) for name in classes])
    return replace(images, labels=numbers[images.labels])


def _at_size(batch: ImageSet, work: PredictionTask) -> ImageSet:
    """Resize images of another data set for the version; one batch, as all of them may exceed the memory."""
    if not work.spec.evaluates:
        return batch
    _, height, width = work.version.shape
    return replace(batch, pixels=resized(batch.pixels, height, width, cast("str", work.spec.resize)))


def _answering(work: PredictionTask, store: Store) -> Answering:
    version = work.version
    graph = store.read(work.graph.path, work.graph.sha256)
    predictor = Predictor(graph, tuple(version.shape), tuple(version.classes))
    return Answering(predictor, Calibration(**version.calibration) if version.calibration else UNCALIBRATED)


def _unusable(images: ImageSet) -> dict[int, Answer]:
    """Return the answers for places without an image."""
    named = {place: {"id": images.ids[place]} for place in images.errors if place in images.ids}
    return {place: {"index": place, **named.get(place, {}), "error": why} for place, why in images.errors.items()}


def _in_form(pixels: np.ndarray) -> np.ndarray:
    """Bring images, float32 [n, channels, height, width] in 0..1, to the data set's own form, if they are grey."""
    if pixels.shape[1] != 1:
        return pixels
    greys = np.rint(pixels[:, 0] * 255).astype(np.uint8)
    form = form_of(pixels.shape)
    return in_unit(np.stack([canonical(grey, form).pixels for grey in greys])[:, None])
