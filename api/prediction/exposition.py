"""The metrics that `/metrics` shows.

For several API processes on one machine (`uvicorn --workers`), set PROMETHEUS_MULTIPROC_DIR to an empty folder before
they start. prometheus_client then keeps the figures there, and each process answers for all of them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from math import log

import numpy as np
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from api.prediction.metrics import LABELS, count, registry
from api.prediction.served import Served

LEAST_SHARE = 1e-4  # of a class that was never predicted, so that the drift stays finite
LEAST_IMAGES = 100  # predictions from which on a drift is shown


def exposition(champions: Iterable[Served]) -> bytes:
    """Return all metrics in Prometheus' text format."""
    count()
    shown = CollectorRegistry()
    if not _of_all_processes(shown):
        shown.register(_Families(list(registry.collect())))
    shown.register(_Families([*_champions(list(champions), list(shown.collect()))]))
    found: bytes = generate_latest(shown)
    return found


def end_process(pid: int) -> None:
    """Remove this process's queue from the sum over all processes."""
    count()
    if _of_all_processes(CollectorRegistry()):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _of_all_processes(shown: CollectorRegistry) -> bool:
    """Add the metrics of all processes to `shown`; return False if PROMETHEUS_MULTIPROC_DIR is not set."""
    try:
        MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
    except ValueError:
        return False
    return True


class _Families(Collector):
    """Metrics that have been collected already."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def _champions(champions: list[Served], families: list[Metric]) -> Iterator[Metric]:
    """Yield the champions, and how far their predicted classes have drifted from those of the validation images."""
    info = GaugeMetricFamily("chiffre_champion", "1 for each champion in memory", labels=[*LABELS, "checkpoint_sha256"])
    drift = GaugeMetricFamily(
        "chiffre_class_drift",
        "Population stability index of predicted classes against those of validation images; above 0.2 is strong",
        labels=LABELS,
    )
    counts = _class_counts(families)
    for served in champions:
        own = (served.version.model, served.version.dataset, str(served.version.version))
        info.add_metric([*own, served.checkpoint_sha256], 1)
        found = np.array([counts[own][label] for label in served.labels])
        if served.calibration.class_shares and found.sum() >= LEAST_IMAGES:
            drift.add_metric(own, population_stability(np.array(served.calibration.class_shares), found / found.sum()))
    yield info
    yield drift


def _class_counts(families: list[Metric]) -> dict[tuple[str, ...], dict[str, float]]:
    counts: dict[tuple[str, ...], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for sample in (sample for family in families for sample in family.samples):
        if sample.name == "chiffre_predicted_class_total":
            counts[tuple(sample.labels[name] for name in LABELS)][sample.labels["label"]] += sample.value
    return counts


def population_stability(expected: np.ndarray, found: np.ndarray) -> float:
    """Return the population stability index of shares against expected shares, both [classes]: Σ (f - e) ln(f / e).

    Below 0.1 the drift is weak, above 0.2 strong. Formula and rule of thumb: Siddiqi, Credit Risk Scorecards (2006).
    """
    pairs = zip(np.maximum(expected, LEAST_SHARE).tolist(), np.maximum(found, LEAST_SHARE).tolist(), strict=True)
    return float(sum((f - e) * log(f / e) for e, f in pairs))
