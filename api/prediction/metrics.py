"""Prometheus metrics of prediction: the number of images, durations, confidences and predicted classes."""

from collections import Counter as Collected
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from threading import Lock
from typing import TypeVar

import numpy as np
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from api.prediction.batch_result import BatchResult

T = TypeVar("T")

log = structlog.get_logger()

LABELS = ("model", "dataset", "version")
SECONDS = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


class Distribution(Histogram):
    """A histogram that observes many values at once."""

    def observe_all(self, values: np.ndarray) -> None:
        """Observe the finite ones of values [n]; many values cost one addition per bucket instead of one per value."""
        values = values[np.isfinite(values)]  # NaN lies in no bucket, and would spoil the sum for good
        if len(values) <= 2:
            for value in values.tolist():
                self.observe(value)
            return
        counts = np.bincount(np.searchsorted(self._upper_bounds, values), minlength=len(self._upper_bounds))
        for place in counts.nonzero()[0].tolist():
            self._buckets[place].inc(int(counts[place]))
        self._sum.inc(float(values.sum()))


registry = CollectorRegistry()
requests = Counter("chiffre_predict_requests", "Requests to /predict by status", ["status"], registry=registry)
predictions = Counter(
    "chiffre_predictions", "Images by outcome: answered or abstained", [*LABELS, "outcome"], registry=registry
)
classes = Counter("chiffre_predicted_class", "Images by predicted class", [*LABELS, "label"], registry=registry)
duration = Distribution(
    "chiffre_prediction_duration_seconds",
    "read: of a body; queue: of a batch's first request; compute: of a batch",
    ["stage"],
    buckets=SECONDS,
    registry=registry,
)
batch_size = Distribution("chiffre_batch_images", "Images that ran together", buckets=IMAGES, registry=registry)
queue_depth = Gauge(
    "chiffre_queue_images", "Images that wait for a prediction", multiprocess_mode="livesum", registry=registry
)
confidence = Distribution(
    "chiffre_prediction_confidence",
    "Probability of the predicted class",
    LABELS,
    buckets=CONFIDENCES,
    registry=registry,
)
_read, _queue, _compute = (duration.labels(stage) for stage in ("read", "queue", "compute"))
PENDING = 4096  # uncounted batches, at most


@dataclass(slots=True)
class _Batch:
    """The figures of a batch that has run; the batch itself would keep its predictions in memory."""

    meter: "Meter"
    labels: list[int]
    reasons: list[str | None]
    probabilities: np.ndarray
    images: int  # that ran together, including those that are no predictions
    waited: float  # seconds, of its first request
    took: float  # seconds
    waiting: int  # images in the queue after it


# Not counted yet. Counting all batches of a second at once takes a tenth of the time of counting each.
_batches: deque[_Batch] = deque()
_reads: deque[float] = deque()
_statuses: deque[int] = deque()
_counting = Lock()


class Meter:
    """Counts the predictions of one version."""

    def __init__(self, model: str, dataset: str, version: int, labels: Iterable[str]) -> None:
        own = (model, dataset, str(version))
        self._answered, self._abstained = (predictions.labels(*own, outcome) for outcome in ("answered", "abstained"))
        self._classes = [classes.labels(*own, label) for label in labels]
        self._confidence: Distribution = confidence.labels(*own)

    def count_batch(self, batch: BatchResult, images: int, waited: float, took: float, waiting: int) -> None:
        """Note a batch that has run; `count` adds it to the metrics.

        Args:
            batch: those of its results that are predictions.
            images: the number of images that ran.
            waited: seconds that the first request waited for the batch.
            took: seconds that the batch took.
            waiting: images in the queue after it.
        """
        _batches.append(_Batch(self, batch.labels, batch.reasons, batch.probabilities, images, waited, took, waiting))
        if len(_batches) >= PENDING:
            count()

    def add(self, batches: list[_Batch]) -> None:
        """Add the images of batches to the metrics."""
        reasons = list(chain.from_iterable(each.reasons for each in batches))
        self._answered.inc(reasons.count(None))
        self._abstained.inc(len(reasons) - reasons.count(None))
        for label, images in Collected(chain.from_iterable(each.labels for each in batches)).items():
            self._classes[label].inc(images)
        self._confidence.observe_all(np.concatenate([each.probabilities for each in batches]).max(1))


def count_read(seconds: float) -> None:
    """Note the seconds that reading a body as images took."""
    _reads.append(seconds)


def count_request(status: int) -> None:
    """Note the status of an answer of /predict."""
    _statuses.append(status)


def count() -> None:
    """Add to the metrics what was noted since the last call; any thread may call it.

    If that fails, for example because the disk with the figures of several processes is full, the figures are logged
    as lost: a caller must go on to answer requests.
    """
    with _counting:
        try:
            _count(_drained(_batches), _drained(_reads), _drained(_statuses))
        except Exception as error:
            log.warning("could not count predictions", error=str(error))


def _count(batches: list[_Batch], reads: list[float], statuses: list[int]) -> None:
    for status, times in Collected(statuses).items():
        requests.labels(str(status)).inc(times)
    _read.observe_all(np.array(reads))
    _queue.observe_all(np.array([each.waited for each in batches]))
    _compute.observe_all(np.array([each.took for each in batches]))
    batch_size.observe_all(np.array([each.images for each in batches]))
    if batches:
        queue_depth.set(batches[-1].waiting)
    for meter in {id(each.meter): each.meter for each in batches}.values():
        meter.add([each for each in batches if each.meter is meter])


def _drained(pending: deque[T]) -> list[T]:
    """Remove and return what is in a queue now."""
    return [pending.popleft() for _ in range(len(pending))]
