"""What a network answers for its validation images: confusion matrix, calibration by bins, and its mistakes.

`python -m ml.prediction.judgement` reads a line of JSON, an Order, and then the bytes of the ONNX graph from standard
input. It writes a Judgement as JSON. It is a program of its own because it needs the whole data set in memory.
"""

import sys
from collections.abc import Iterator

import numpy as np
from pydantic import BaseModel

from ml.datasets import Arrays, SplitName, data_split, datasets
from ml.images.samples import packed
from ml.prediction.calibration import ECE_BINS, UNCALIBRATED, Calibration
from ml.prediction.predictor import MAX_BATCH, Predictor

SHOWN = 24  # mistakes that are kept of each pair of classes, the most confident


class JudgementOrder(BaseModel, frozen=True):
    """Which images a network is judged by, and how its outputs are read."""

    dataset: str
    split: SplitName
    seed: int  # of the job that trained it: which images validated it follows from that
    images: int | None = None  # that the job was held to
    calibration: Calibration = UNCALIBRATED


class Bin(BaseModel, frozen=True):
    """Images for which the network is about equally sure."""

    low: float  # confidence above it
    high: float  # up to it
    images: int
    confidence: float | None  # its mean, 0..1; None without images, as the next
    accuracy: float | None  # share that it got right, 0..1


class Mistake(BaseModel, frozen=True):
    """An image that was taken for something else."""

    index: int  # its number in the data set
    actual: int  # class
    predicted: int  # class
    confidence: float  # 0..1
    pixels: str  # base64 of its bytes, row by row


class Judgement(BaseModel, frozen=True):
    """What came of all of them."""

    images: int
    confusion_matrix: list[list[int]]  # a row a true class, a column a predicted one
    bins: list[Bin]
    mistakes: list[Mistake]  # at most SHOWN of each pair of classes, the most confident first


def judge(order: JudgementOrder, graph: bytes) -> Judgement:
    """Look at the validation images; DataError where the data set is damaged, CheckpointError where the graph is."""
    dataset = datasets[order.dataset]
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
    """Calibrated class probabilities, float32 [n, classes], of the images at `places` [n]."""
    parts = [
        calibration.probabilities(predictor.run(arrays.images[part].astype(np.float32) / np.float32(255))[0])
        for part in np.split(places, range(MAX_BATCH, len(places), MAX_BATCH))
    ]
    return np.concatenate(parts)


def bins(confidence: np.ndarray, right: np.ndarray) -> Iterator[Bin]:
    """Images by confidence [n], 0..1, in the bins that the calibration error is counted in; `right` is bool [n]."""
    of = np.clip(np.ceil(confidence * ECE_BINS).astype(int) - 1, 0, ECE_BINS - 1)
    for number in range(ECE_BINS):
        inside = of == number
        n = int(inside.sum())
        mean, share = (float(values[inside].mean()) if n else None for values in (confidence, right))
        yield Bin(low=number / ECE_BINS, high=(number + 1) / ECE_BINS, images=n, confidence=mean, accuracy=share)


def worst(actual: np.ndarray, predicted: np.ndarray, confidence: np.ndarray) -> Iterator[int]:
    """Places of the mistakes, the most confident first, at most SHOWN of each pair of classes."""
    seen: dict[tuple[int, int], int] = {}
    for place in np.argsort(-confidence, kind="stable").tolist():
        pair = int(actual[place]), int(predicted[place])
        if pair[0] != pair[1] and seen.get(pair, 0) < SHOWN:
            seen[pair] = seen.get(pair, 0) + 1
            yield place


def main() -> None:
    """Judge what standard input holds."""
    line, _, graph = sys.stdin.buffer.read().partition(b"\n")
    sys.stdout.write(judge(JudgementOrder.model_validate_json(line), graph).model_dump_json())


if __name__ == "__main__":
    main()
