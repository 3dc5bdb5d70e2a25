"""The judgement of a network on its validation images: confusion matrix, calibration bins and mistakes.

`python -m ml.prediction.judgement` reads a line of JSON, a JudgementOrder, and then the bytes of the ONNX graph from
standard input. It writes a Judgement as JSON. It is a separate program because it holds the whole data set in memory.
"""

import sys
from collections.abc import Iterator

import numpy as np
from pydantic import BaseModel

from ml.datasets import Arrays, Dataset, FindDataset, SplitName, data_split, datasets
from ml.images.samples import packed
from ml.prediction.calibration import ECE_BINS, UNCALIBRATED, Calibration
from ml.prediction.predictor import MAX_BATCH, Predictor

SHOWN = 24  # mistakes kept per pair of classes, the most confident ones


class JudgementOrder(BaseModel, frozen=True):
    """The images that a network is judged on, and its calibration."""

    dataset: str
    split: SplitName
    seed: int  # of the job that trained it; it decides the validation images
    images: int | None = None  # limit on training and validation images of the job
    calibration: Calibration = UNCALIBRATED


class Bin(BaseModel, frozen=True):
    """Images with similar confidence."""

    low: float  # the confidence is above it
    high: float  # the confidence is at most this
    images: int
    confidence: float | None  # mean, 0..1; None without images, like accuracy
    accuracy: float | None  # share of right answers, 0..1


class Mistake(BaseModel, frozen=True):
    """An image that was classified wrongly."""

    index: int  # its number in the data set
    actual: int  # class
    predicted: int  # class
    confidence: float  # 0..1
    pixels: str  # base64 of the bytes, row by row


class Judgement(BaseModel, frozen=True):
    """The result over all validation images."""

    images: int
    confusion_matrix: list[list[int]]  # rows are true classes, columns predicted ones
    bins: list[Bin]
    mistakes: list[Mistake]  # at most SHOWN per pair of classes, the most confident first


def judge(order: JudgementOrder, dataset: Dataset, graph: bytes) -> Judgement:
    """Judge a network, an ONNX graph, on its validation images.

    Raises:
        DataError: if the data set is damaged.
        CheckpointError: if the graph cannot be used.
    """
    arrays = dataset.load()
    whole = data_split(len(arrays), dataset.official_test, order.split, order.seed)
    places = whole.held_to(order.images).validation
    found = probabilities(Predictor(graph, dataset.shape, dataset.classes), order.calibration, arrays, places)
    confidence, predicted, actual = found.max(1).astype(np.float64), found.argmax(1), arrays.labels[places]
    matrix = np.zeros((len(dataset.classes),) * 2, np.int64)
    np.add.at(matrix, (actual, predicted), 1)
    return Judgement(
        images=len(places),
        confusion_matrix=matrix.tolist(),
        bins=list(bins(confidence, predicted == actual)),
        mistakes=[
            Mistake(
                index=int(places[i]),
                actual=int(actual[i]),
                predicted=int(predicted[i]),
                confidence=round(float(confidence[i]), 6),
                pixels=packed(arrays.images[places[i]]),
            )
            for i in worst(actual, predicted, confidence)
        ],
    )


def probabilities(predictor: Predictor, calibration: Calibration, arrays: Arrays, places: np.ndarray) -> np.ndarray:
    """Return calibrated class probabilities, float32 [n, classes], of the images at `places` [n]."""
    batches = [
        calibration.probabilities(predictor.run(arrays.images[batch].astype(np.float32) / np.float32(255))[0])
        for batch in np.split(places, range(MAX_BATCH, len(places), MAX_BATCH))
    ]
    return np.concatenate(batches)


def bins(confidence: np.ndarray, right: np.ndarray) -> Iterator[Bin]:
    """Count images in the bins of the calibration error; `confidence` is [n], 0..1, and `right` bool [n]."""
    of = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    for number in range(ECE_BINS):
        inside = of == number
        n = int(inside.sum())
        mean, share = (float(values[inside].mean()) if n else None for values in (confidence, right))
        yield Bin(low=number / ECE_BINS, high=(number + 1) / ECE_BINS, images=n, confidence=mean, accuracy=share)


def worst(actual: np.ndarray, predicted: np.ndarray, confidence: np.ndarray) -> Iterator[int]:
    """Yield the places of mistakes, the most confident first, at most SHOWN per pair of classes."""
    seen: dict[tuple[int, int], int] = {}
    for place in np.argsort(-confidence, kind="stable").tolist():
        pair = int(actual[place]), int(predicted[place])
        if pair[0] != pair[1] and seen.get(pair, 0) < SHOWN:
            seen[pair] = seen.get(pair, 0) + 1
            yield place


def main(find: FindDataset = datasets.__getitem__) -> None:
    """Judge the network on standard input."""
    line, _, graph = sys.stdin.buffer.read().partition(b"\n")
    order = JudgementOrder.model_validate_json(line)
    sys.stdout.write(judge(order, find(order.dataset), graph).model_dump_json())


if __name__ == "__main__":
    main()
