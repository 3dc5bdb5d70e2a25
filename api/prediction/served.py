"""A version in memory that predicts."""

from concurrent.futures import Executor
from dataclasses import dataclass
from timeit import repeat
from typing import Any

import numpy as np
import orjson

from api.prediction.batch_result import BatchResult
from api.prediction.batcher import Batcher
from api.prediction.metrics import Meter
from api.prediction.queue_limit import QueueLimit
from ml.datasets import digit_of
from ml.errors import ChiffreError
from ml.prediction.calibration import UNCALIBRATED, Calibration
from ml.prediction.predictor import MAX_BATCH, Predictor
from worker.artifacts.store import Store
from worker.database.tables import Artifact, ModelVersion

WARM_UPS = 4  # runs of the largest batch before a version serves requests
Files = tuple[ModelVersion, Artifact, Artifact]  # a version, its graph and its checkpoint


@dataclass(frozen=True)
class Served:
    """A version in memory, with all that an answer says about it."""

    predictor: Predictor
    calibration: Calibration
    version: ModelVersion
    checkpoint_sha256: str
    batcher: Batcher
    labels: tuple[str, ...]  # by class
    digits: tuple[int | None, ...]  # the labels as numbers if they are digits
    origin: bytes  # the end of every answer: a comma, the version's fields and the closing brace

    @property
    def name(self) -> str:
        """The model's name in the Open Inference Protocol."""
        version = self.version
        return version.model if version.dataset == "mnist" else f"{version.model}.{version.dataset}"


def load(
    version: ModelVersion, onnx: Artifact, checkpoint: Artifact, store: Store, queue: QueueLimit, executor: Executor
) -> Served:
    """Load a version from storage, verify its hash, warm it up and test it.

    Raises:
        ChiffreError: if its files are missing or damaged, or it does not predict.
    """
    graph = store.read(onnx.path, onnx.sha256)
    predictor = Predictor(graph, tuple(version.shape), tuple(version.classes))
    calibration = Calibration(**version.calibration) if version.calibration else UNCALIBRATED

    def run(pixels: np.ndarray) -> BatchResult:
        outputs, novelty = predictor.run(pixels)
        probabilities = calibration.probabilities(outputs)
        return BatchResult(probabilities, calibration.reasons(probabilities, novelty))

    meter = Meter(version.model, version.dataset, version.version, version.classes)
    _self_test(run(np.zeros((1, *predictor.shape), np.float32)), len(predictor.classes))
    blank = np.zeros((MAX_BATCH, *predictor.shape), np.float32)
    # The fastest of a few runs: a single one may be interrupted, and the version would count as slow for good.
    seconds = min(repeat(lambda: run(blank), number=1, repeat=WARM_UPS)) / MAX_BATCH
    return Served(
        predictor,
        calibration,
        version,
        checkpoint.sha256,
        Batcher(run, seconds, queue, executor, meter.count_batch),
        predictor.classes,
        tuple(map(digit_of, predictor.classes)),
        _origin(version, checkpoint),
    )


def _self_test(batch: BatchResult, classes: int) -> None:
    """Check the first prediction, for a blank image."""
    found = batch.probabilities
    if found.shape != (1, classes) or not np.isfinite(found).all():
        raise ChiffreError(
            f"the graph returns {found.shape} for {classes} classes, or values that are not finite; publish it again"
        )


def _origin(version: ModelVersion, checkpoint: Artifact) -> bytes:
    named = version.model_dump(include={"model", "dataset", "version", "job_id", "trial"})
    origin: dict[str, Any] = {**named, "checkpoint_sha256": checkpoint.sha256}
    return b"," + orjson.dumps(origin)[1:]
