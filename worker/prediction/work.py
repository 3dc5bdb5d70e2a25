"""A version answers for many images: the work of a predict job."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import orjson
from pydantic import BaseModel

from ml.canonical.canonical import canonical
from ml.canonical.frame import form_of
from ml.datasets import FindDataset, digit_of
from ml.images.resize import resized
from ml.prediction.calibration import UNCALIBRATED, Calibration
from ml.prediction.predictor import Predictor
from ml.statistics.intervals import wilson
from worker.artifacts.store import Store, drop_files
from worker.errors import LeaseLost
from worker.ledger.leases import Claim
from worker.prediction.image_sets import UNKNOWN, ImageSet, Subset, in_unit
from worker.prediction.rows import PredictionRows, PredictionTask
from worker.training.ledger_book import Orders

PART = 512  # images between two looks at what the supervisor wants: less than a second's work even for the CNN
DIGITS = 6  # of a probability, as /predict shows it

Answer = dict[str, Any]  # a line of the results


class Result(BaseModel):
    """What a predict job found. Accuracy is that of the most probable class, whether or not the version abstained."""

    images: int  # unusable ones included
    unusable: int
    abstained: int
    labelled: int  # images whose class is known
    accuracy: float | None  # share of those, 0..1
    interval: tuple[float, float] | None = None  # of 95 %, that the accuracy speaks for
    confusion_matrix: list[list[int]] | None  # of those: a row a true class, a column a predicted one
    classes: list[str]


class Answering:
    """A version that answers, and the count of what it got right."""

    def __init__(self, predictor: Predictor, calibration: Calibration) -> None:
        self.predictor = predictor
        self.calibration = calibration
        self.abstained = 0
        classes = len(predictor.classes)
        self.confusion = np.zeros((classes, classes), np.int64)  # by true and by predicted class

    def answers(self, images: ImageSet, in_form: bool, ids: dict[int, str]) -> Iterator[tuple[int, Answer]]:
        """What each image shows, with its place."""
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
        """What was found over all of them."""
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


def predict(claim: Claim, predicting: PredictionRows, store: Store, orders: Orders, find: FindDataset) -> bool:
    """Classify the images of the claimed pack's job; False where the pack must end before all of them are.

    Nothing is kept of what was begun: to do it again takes seconds. LeaseLost where the pack is another's by now.
    """
    work = predicting.work(claim)
    images = _images(claim, work, predicting, store, find)
    answering = _answering(work, store)
    lines = {place: orjson.dumps(answer) for place, answer in _unusable(images).items()}
    for part in images.parts(PART):
        if orders.stop is not None:
            return False
        found = answering.answers(_at_size(part, work), work.spec.canonical, images.ids)
        lines |= {place: orjson.dumps(answer) for place, answer in found}
    content = b"".join(lines[place] + b"\n" for place in sorted(lines))
    # Pack and epoch in the path keep two claims from writing the same file.
    path = f"{claim.job_id}/predictions.{claim.pack_id}.{claim.epoch}.jsonl"
    saved = store.write(path, content)
    try:
        unneeded = predicting.finish(claim, (path, saved), answering.result(images).model_dump())
    except LeaseLost:
        drop_files(store, [path])
        raise
    drop_files(store, unneeded)
    return True


def _images(
    claim: Claim, work: PredictionTask, predicting: PredictionRows, store: Store, find: FindDataset
) -> ImageSet:
    """What the version is given; that test images are opened is written down before."""
    if work.upload is not None:
        return ImageSet.of_bytes(store.read(work.upload.path, work.upload.sha256), work.upload.path)
    if work.spec.opens_test:
        predicting.open_test(claim, work.version, work.split)
    subset = cast("Subset", work.spec.subset)  # a job without an upload names one
    dataset = find(work.spec.dataset)
    images = ImageSet.of_dataset(dataset, subset, work.split, work.seed, work.images)
    return _renumbered(images, dataset.classes, work.version.classes) if work.spec.evaluates else images


def _renumbered(images: ImageSet, classes: Sequence[str], known: list[str]) -> ImageSet:
    """Images of another data set, and their labels by the version's numbers."""
    numbers = np.array([known.index(name) for name in classes])
    return replace(images, labels=numbers[images.labels])


def _at_size(part: ImageSet, work: PredictionTask) -> ImageSet:
    """Images of another data set at the version's size: some at a time, as all of them may be larger than memory."""
    if not work.spec.evaluates:
        return part
    _, height, width = work.version.shape
    return replace(part, pixels=resized(part.pixels, height, width, cast("str", work.spec.resize)))


def _answering(work: PredictionTask, store: Store) -> Answering:
    version = work.version
    graph = store.read(work.graph.path, work.graph.sha256)
    predictor = Predictor(graph, tuple(version.shape), tuple(version.classes))
    return Answering(predictor, Calibration(**version.calibration) if version.calibration else UNCALIBRATED)


def _unusable(images: ImageSet) -> dict[int, Answer]:
    """What is said of places without an image."""
    named = {place: {"id": images.ids[place]} for place in images.errors if place in images.ids}
    return {place: {"index": place, **named.get(place, {}), "error": why} for place, why in images.errors.items()}


def _in_form(pixels: np.ndarray) -> np.ndarray:
    """Images, float32 [n, channels, height, width] in 0..1, in the data set's own form; only grey ones have one."""
    if pixels.shape[1] != 1:
        return pixels
    greys = np.rint(pixels[:, 0] * 255).astype(np.uint8)
    form = form_of(pixels.shape)
    return in_unit(np.stack([canonical(grey, form).pixels for grey in greys])[:, None])
