"""The figures of prediction: how many images were answered, how fast, how surely, and as which classes."""

from collections.abc import Iterable
from functools import cache

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from api.prediction.answered import Batch

LABELS = ("model", "dataset", "version")
SECONDS = (1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 2.5e-2, 5e-2, 0.1, 0.25, 0.5, 1, 2.5)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
CONFIDENCES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)


class Distribution(Histogram):
    """A histogram that takes many values at once."""

    def observe_all(self, values: np.ndarray) -> None:
        """Observe each of the values [n]; of many, one addition a bucket instead of one a value."""
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
duration = Histogram(
    "chiffre_prediction_duration_seconds",
    "read: of a body; queue: of a batch's first question; compute: of a batch",
    ["stage"],
    buckets=SECONDS,
    registry=registry,
)
batch_size = Histogram("chiffre_batch_images", "Images that ran together", buckets=IMAGES, registry=registry)
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


class Meter:
    """Counts what one version answers."""

    def __init__(self, model: str, dataset: str, version: int, labels: Iterable[str]) -> None:
        own = (model, dataset, str(version))
        self._answered, self._abstained = (predictions.labels(*own, outcome) for outcome in ("answered", "abstained"))
        self._classes = [classes.labels(*own, label) for label in labels]
        self._confidence: Distribution = confidence.labels(*own)

    def ran(self, batch: Batch, waited: float, took: float, left: int) -> None:
        """A batch has run: the seconds its first question waited and it took, and how many images wait now."""
        _queue.observe(waited)
        _compute.observe(took)
        batch_size.observe(len(batch.labels))
        queue_depth.set(left)
        abstained = len(batch.reasons) - batch.reasons.count(None)
        self._answered.inc(len(batch.labels) - abstained)
        if abstained:
            self._abstained.inc(abstained)
        for label in set(batch.labels):
            self._classes[label].inc(batch.labels.count(label))
        self._confidence.observe_all(batch.probabilities.max(1))


def was_read(seconds: float) -> None:
    """A body has been read as images."""
    _read.observe(seconds)


@cache
def requests_of(status: int) -> Counter:
    """The counter of requests to /predict that were answered so; kept, as looking it up takes longer than counting."""
    return requests.labels(str(status))
