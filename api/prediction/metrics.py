"""The figures of prediction: how many images were answered, how fast, how surely, and as which classes."""

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
    """A histogram that takes many values at once."""

    def observe_all(self, values: np.ndarray) -> None:
        """Observe each of the values [n] that is a number; of many, one addition a bucket instead of one a value."""
        values = values[np.isfinite(values)]  # another lies in no bucket, and the sum would never be a number again
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
    "read: of a body; queue: of a batch's first question; compute: of a batch",
    ["stage"],
    buckets=SECONDS,
    registry=registry,
)
batch_size = Distribution("chiffre_batch_images", "Images that ran together", buckets=IMAGES, registry=registry)
queue_depth = Gauge(
    "chiffre_queue_images", "Images that wait for an answer", multiprocess_mode="livesum", registry=registry
)
confidence = Distribution(
    "chiffre_prediction_confidence",
    "Probability of the predicted class",
    LABELS,
    buckets=CONFIDENCES,
    registry=registry,
)
_read, _queue, _compute = (duration.labels(stage) for stage in ("read", "queue", "compute"))
PENDING = 4096  # batches that are yet to be counted, at most


@dataclass(slots=True)
class _Ran:
    """What is counted of a batch that has run; the batch itself would keep its answers in memory until then."""

    meter: "Meter"
    labels: list[int]
    reasons: list[str | None]
    probabilities: np.ndarray
    images: int  # that ran together, those that are not counted too
    waited: float
    took: float
    left: int


# What is yet to be counted. Counting all of a second at once takes a tenth of what counting each batch would.
_ran: deque[_Ran] = deque()
_reads: deque[float] = deque()
_statuses: deque[int] = deque()
_counting = Lock()


class Meter:
    """Counts what one version answers."""

    def __init__(self, model: str, dataset: str, version: int, labels: Iterable[str]) -> None:
        own = (model, dataset, str(version))
        self._answered, self._abstained = (predictions.labels(*own, outcome) for outcome in ("answered", "abstained"))
        self._classes = [classes.labels(*own, label) for label in labels]
        self._confidence: Distribution = confidence.labels(*own)

    def ran(self, batch: BatchResult, images: int, waited: float, took: float, left: int) -> None:
        """A batch of so many images has run, of which `batch` are counted as predictions.

        Its first question waited and it took so many seconds, and so many images wait now.
        """
        _ran.append(_Ran(self, batch.labels, batch.reasons, batch.probabilities, images, waited, took, left))
        if len(_ran) >= PENDING:
            count()

    def add(self, ran: list[_Ran]) -> None:
        """Count the images of these batches."""
        reasons = list(chain.from_iterable(each.reasons for each in ran))
        self._answered.inc(reasons.count(None))
        self._abstained.inc(len(reasons) - reasons.count(None))
        for label, images in Collected(chain.from_iterable(each.labels for each in ran)).items():
            self._classes[label].inc(images)
        self._confidence.observe_all(np.concatenate([each.probabilities for each in ran]).max(1))


def count_read(seconds: float) -> None:
    """A body has been read as images."""
    _reads.append(seconds)


def count_request(status: int) -> None:
    """A request to /predict has been answered."""
    _statuses.append(status)


def count() -> None:
    """Count what has happened since this was called last; any thread may call it.

    What cannot be counted, as where the folder of several processes' figures is full, is logged and lost: whoever calls
    this has answers to give.
    """
    with _counting:
        try:
            _count(_drained(_ran), _drained(_reads), _drained(_statuses))
        except Exception as error:
            log.warning("could not count what was answered", error=str(error))


def _count(ran: list[_Ran], reads: list[float], statuses: list[int]) -> None:
    for status, times in Collected(statuses).items():
        requests.labels(str(status)).inc(times)
    _read.observe_all(np.array(reads))
    _queue.observe_all(np.array([each.waited for each in ran]))
    _compute.observe_all(np.array([each.took for each in ran]))
    batch_size.observe_all(np.array([each.images for each in ran]))
    if ran:
        queue_depth.set(ran[-1].left)
    for meter in {id(each.meter): each.meter for each in ran}.values():
        meter.add([each for each in ran if each.meter is meter])


def _drained(pending: deque[T]) -> list[T]:
    """What lay in a queue just now, taken out."""
    return [pending.popleft() for _ in range(len(pending))]
