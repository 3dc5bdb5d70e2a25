"""The metrics of /metrics, in one process and over several."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families
from scipy.special import kl_div
from starlette.testclient import TestClient
from support.worker_tools import Work

from api.prediction import metrics
from api.prediction.exposition import population_stability
from api.prediction.metrics import Distribution, registry
from tests.api.tools import eventually, publish, uvicorn_process

BLANK = [0] * 784
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Return the value of every metric by name and labels."""
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def figure(found: Samples, name: str, **labels: str) -> float:
    """Return the value of one metric, 0 if it is missing."""
    return found.get((name, frozenset(labels.items())), 0)


def looked(api: TestClient) -> Samples:
    """Return the values of all metrics of an API."""
    response = api.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    return samples(response.text)


def test_images_are_counted_by_version_and_outcome(api: TestClient, work: Work, environment: Path) -> None:
    """Predictions, classes, confidences, batches, stages and requests grow with each request."""
    publish(work, environment, "cnn", 0.99)
    own = {"model": "cnn", "dataset": "mnist", "version": "1"}
    api.post("/predict", json={"pixels": BLANK})
    before = looked(api)
    label = api.post("/predict", json={"images": [BLANK] * 5}).json()["predictions"][0]["label"]
    api.post("/predict", json={"pixels": BLANK})
    api.post("/predict", json={"pixels": [1]})
    after = looked(api)

    def grown(name: str, **labels: str) -> float:
        return figure(after, name, **labels) - figure(before, name, **labels)

    assert grown("chiffre_predictions_total", **own, outcome="answered") == 6
    assert grown("chiffre_predicted_class_total", **own, label=label) == 6
    assert grown("chiffre_prediction_confidence_count", **own) == 6
    assert grown("chiffre_prediction_confidence_bucket", **own, le="1.0") == 6
    assert grown("chiffre_batch_images_count") == 2
    assert grown("chiffre_batch_images_sum") == 6
    assert grown("chiffre_prediction_duration_seconds_count", stage="read") == 2
    assert grown("chiffre_prediction_duration_seconds_count", stage="queue") == 2
    assert grown("chiffre_prediction_duration_seconds_count", stage="compute") == 2
    assert grown("chiffre_predict_requests_total", status="200") == 2
    assert grown("chiffre_predict_requests_total", status="422") == 1
    assert figure(after, "chiffre_queue_images") == 0


def test_copies_for_an_explanation_do_not_count_as_predictions(api: TestClient, work: Work, environment: Path) -> None:
    """One request counts as one prediction, one class and one confidence, though hundreds of images ran."""
    publish(work, environment, "cnn", 0.99)
    own = {"model": "cnn", "dataset": "mnist", "version": "1"}
    api.post("/predict", json={"pixels": BLANK})
    before = looked(api)
    label = api.post("/predict?explain=true", json={"pixels": BLANK}).json()["label"]
    after = looked(api)

    def grown(name: str, **labels: str) -> float:
        return figure(after, name, **labels) - figure(before, name, **labels)

    assert grown("chiffre_predictions_total", **own, outcome="answered") == 1
    assert grown("chiffre_predicted_class_total", **own, label=label) == 1
    assert grown("chiffre_prediction_confidence_count", **own) == 1
    assert grown("chiffre_batch_images_sum") == 257


def test_every_champion_has_a_metric(api: TestClient, work: Work, environment: Path) -> None:
    """The metric has the hash of the champion's weights."""
    version = publish(work, environment, "cnn", 0.99)
    api.post("/predict", json={"pixels": BLANK})
    own = {"model": "cnn", "dataset": "mnist", "version": "1", "checkpoint_sha256": version.checkpoint_sha256}

    assert figure(looked(api), "chiffre_champion", **own) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 1000])
def test_values_observed_together_count_like_single_values(count: int) -> None:
    """The buckets and the sum are the same, even for values at the bounds of buckets."""
    values = np.random.default_rng(count).choice([0, 0.1, 0.25, 0.5, 0.50001, 0.99, 1], count)
    bounds = (0.1, 0.5, 0.99, 1)
    name = f"test_{uuid4().hex}"
    many = Distribution(f"{name}_many", "x", buckets=bounds, registry=None)
    single = Distribution(f"{name}_single", "x", buckets=bounds, registry=None)
    many.observe_all(values)
    for value in values:
        single.observe(value)

    def counted(found: Distribution) -> list[Any]:
        (family,) = found.collect()
        return [pytest.approx(s.value) for s in family.samples if not s.name.endswith("_created")]

    assert [each.expected for each in counted(many)] == counted(single)
    assert registry is not None


@pytest.mark.parametrize("count", [1, 5])
def test_nan_is_not_observed(count: int) -> None:
    """NaN falls into no bucket, the other values are counted, and the sum stays finite."""
    found = Distribution(f"test_{uuid4().hex}", "x", buckets=(0.5, 1), registry=None)
    found.observe_all(np.array([np.nan] + [0.25] * count))
    (family,) = found.collect()
    values = [sample.value for sample in family.samples if not sample.name.endswith("_created")]

    assert values == [count, count, count, count, 0.25 * count]


def test_predictions_are_answered_even_if_counting_fails(
    api: TestClient, work: Work, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API still follows new champions, and later predictions are counted again."""
    publish(work, environment, "shallow", 0.9)
    with monkeypatch.context() as patch:
        patch.setattr(metrics.Meter, "add", lambda *_: [].pop())
        assert api.post("/predict", json={"pixels": BLANK}).status_code == 200
        looked(api)
        publish(work, environment, "shallow", 0.95)
        assert eventually(lambda: api.post("/predict", json={"pixels": BLANK}).json()["version"] == 2)
        before = looked(api)
    api.post("/predict", json={"pixels": BLANK})
    after = looked(api)
    own = {"model": "shallow", "dataset": "mnist", "version": "2", "outcome": "answered"}

    assert figure(after, "chiffre_predictions_total", **own) - figure(before, "chiffre_predictions_total", **own) == 1


def test_the_stability_index_is_the_symmetric_divergence() -> None:
    """The index is the sum of SciPy's Kullback-Leibler divergences in both directions; without drift it is 0."""
    generator = np.random.default_rng(0)
    expected, found = (shares / shares.sum() for shares in generator.random((2, 10)) + 0.1)
    divergence = kl_div(found, expected).sum() + kl_div(expected, found).sum()

    assert population_stability(expected, found) == pytest.approx(divergence)
    assert population_stability(expected, expected) == 0


@pytest.mark.long
def test_two_processes_count_together(work: Work, environment: Path, tmp_path: Path) -> None:
    """Each process answers /metrics with the sum over both."""
    publish(work, environment, "shallow", 0.9)
    folder = tmp_path / "figures"
    folder.mkdir()
    with uvicorn_process("--workers", "2", PROMETHEUS_MULTIPROC_DIR=str(folder)) as url:
        counted = 0
        while len(list(folder.glob("counter_*.db"))) < 2 or counted < 20:  # until both have answered something
            assert httpx2.post(f"{url}/predict", json={"pixels": BLANK}).status_code == 200
            counted += 1
        labels = {"model": "shallow", "dataset": "mnist", "version": "1", "outcome": "answered"}

        def total() -> float:
            return figure(samples(httpx2.get(f"{url}/metrics").text), "chiffre_predictions_total", **labels)

        assert eventually(lambda: total() == counted)  # each process counts once a second
        assert total() == counted
