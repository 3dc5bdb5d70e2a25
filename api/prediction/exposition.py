"""What `/metrics` shows.

With several API processes on one machine (`uvicorn --workers`) set PROMETHEUS_MULTIPROC_DIR to an empty folder before
they start: prometheus_client then keeps the figures there, and any of the processes answers for all.
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

LEAST_SHARE = 1e-4  # a class that was never predicted counts as this share, so that the drift stays finite
LEAST_IMAGES = 100  # of fewer images nothing is said about drift


def exposition(champions: Iterable[Served]) -> bytes:
    """All figures in Prometheus' text format."""
    count()
    shown = CollectorRegistry()
    if not _of_all_processes(shown):
        shown.register(_Families(list(registry.collect())))
    shown.register(_Families([*_champions(list(champions), list(shown.collect()))]))
    found: bytes = generate_latest(shown)
    return found


def end_process(pid: int) -> None:
    """Take what this process has waiting out of the sum over all."""
    count()
    if _of_all_processes(CollectorRegistry()):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def _of_all_processes(shown: CollectorRegistry) -> bool:
    """Let `shown` hold the figures of all processes; False where no folder is named, and this is the only one."""
    try:
        MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
    except ValueError:
        return False
    return True


class _Families(Collector):
    """Figures that have been collected."""

    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterable[Metric]:
        return self.families


def _champions(champions: list[Served], families: list[Metric]) -> Iterator[Metric]:
    """Who answers, and how far what they predict has moved from what they predicted for validation images."""
    info = GaugeMetricFamily(
        "chiffre_champion", "1 for each version that answers", labels=[*LABELS, "checkpoint_sha256"]
    )
    drift = GaugeMetricFamily(
        "chiffre_class_drift",
        "Population stability index of the predicted classes against those of the validation images; above 0.2 is much",
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
    """The population stability index of shares [classes] against what is expected: Σ (f - e) ln(f / e).

    Siddiqi, Credit Risk Scorecards (2006), from where also the rule of thumb comes: below 0.1 is little, above 0.2
    much.
    """
    pairs = zip(np.maximum(expected, LEAST_SHARE).tolist(), np.maximum(found, LEAST_SHARE).tolist(), strict=True)
    return float(sum((f - e) * log(f / e) for e, f in pairs))
