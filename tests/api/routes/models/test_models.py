"""Published versions and champions."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.worker_tools import Work

from ml.datasets import datasets
from tests.api.tools import pointers, problem, publish


def versions(api: TestClient, model: str) -> list[dict[str, Any]]:
    """Return a network's versions."""
    found: list[dict[str, Any]] = api.get(f"/models/{model}").json()["versions"]
    return found


def test_without_versions_the_list_is_empty(api: TestClient) -> None:
    """No version is published at first."""
    assert api.get("/models").json() == {"items": []}


def test_the_list_names_every_network_with_a_version(api: TestClient, work: Work, environment: Path) -> None:
    """Networks are sorted by name, each as its own route shows it."""
    for model in ("shallow", "cnn"):
        publish(work, environment, model)
    items = api.get("/models").json()["items"]

    assert [item["model"] for item in items] == ["cnn", "shallow"]
    assert items == [api.get(f"/models/{name}").json() for name in ("cnn", "shallow")]


def test_the_newest_version_comes_first_and_one_is_the_champion(api: TestClient, work: Work, environment: Path) -> None:
    """Each publication is a new version; the best one is the champion, even if it is old."""
    for value in (0.9, 0.95, 0.92):
        publish(work, environment, value=value)
    found = versions(api, "perceptron")

    assert [version["version"] for version in found] == [3, 2, 1]
    assert [version["champion"] for version in found] == [False, True, False]


def test_each_data_set_has_its_own_champion(api: TestClient, work: Work, environment: Path) -> None:
    """Versions compete only with versions trained on the same data."""
    publish(work, environment, value=0.99)
    publish(work, environment, value=0.9, dataset="digits")

    assert [version["champion"] for version in versions(api, "perceptron")] == [True, True]


def test_versions_of_another_split_or_objective_do_not_compete(api: TestClient, work: Work, environment: Path) -> None:
    """A higher value on other validation images does not count as better."""
    publish(work, environment, value=0.9)
    publish(work, environment, value=0.99, split="official")
    publish(work, environment, value=0.99, objective="val_loss")

    assert [version["champion"] for version in versions(api, "perceptron")] == [False, False, True]


def test_a_version_shows_its_origin(api: TestClient, work: Work, environment: Path) -> None:
    """A version shows job, trial, hyper-parameters, data, results, and the hash of its weights."""
    published = publish(work, environment, "shallow", 0.9)
    (version,) = versions(api, "shallow")
    trial = api.get(f"/jobs/{published.job.id}/trials/{version['trial']}").json()

    assert version["job_id"] == published.job.id
    assert version["params"] == trial["params"]
    assert (version["val_accuracy"], version["val_loss"]) == (trial["val_accuracy"], trial["val_loss"])
    assert (version["test_accuracy"], version["test_loss"]) == (0.89, 0.25)
    assert (version["dataset"], version["dataset_sha256"]) == ("mnist", datasets["mnist"].sha256)
    assert (version["split"], version["objective"]) == ("random", "val_accuracy")
    assert version["weights"] == sum(tensor.numel() for tensor in published.module.parameters())
    assert version["checkpoint_sha256"] == published.checkpoint_sha256


def test_a_version_shows_sizes_latency_and_calibration(api: TestClient, work: Work, environment: Path) -> None:
    """Sizes and hashes agree with the files; latency and calibration agree with the measurements at publication."""
    measured = {"latency_seconds": 0.0001, "calibration": {"temperature": 1.5, "ece": 0.01}}
    published = publish(work, environment, measured=measured)
    (version,) = versions(api, "perceptron")
    graph, weights = (next((environment / published.job.id).glob(f"*.{kind}")) for kind in ("onnx", "safetensors"))

    assert (version["onnx_bytes"], version["checkpoint_bytes"]) == (graph.stat().st_size, weights.stat().st_size)
    assert version["onnx_sha256"] == hashlib.sha256(graph.read_bytes()).hexdigest()
    assert (version["latency_seconds"], version["calibration"]) == (0.0001, {"temperature": 1.5, "ece": 0.01})
    assert (version["run"], version["value"], version["shape"]) == (1, 0.9, [1, 28, 28])


def test_what_was_not_measured_is_null(api: TestClient, work: Work, environment: Path) -> None:
    """A version of an earlier release may have no latency and no calibration."""
    publish(work, environment)
    (version,) = versions(api, "perceptron")

    assert (version["latency_seconds"], version["calibration"]) == (None, None)


def test_a_network_names_its_champion_for_each_data_set(api: TestClient, work: Work, environment: Path) -> None:
    """Champions are listed by data set, each with the time of its last move."""
    for dataset, value in (("mnist", 0.9), ("digits", 0.8), ("mnist", 0.7), ("digits", 0.85)):
        publish(work, environment, value=value, dataset=dataset)
    champions = api.get("/models/perceptron").json()["champions"]

    assert [(c["model"], c["dataset"], c["version"]) for c in champions] == [
        ("perceptron", "digits", 4),
        ("perceptron", "mnist", 1),
    ]
    assert champions[0]["moved_at"] >= champions[1]["moved_at"] > "2020"


def test_a_version_agrees_with_the_list(api: TestClient, work: Work, environment: Path) -> None:
    """This holds for champions and for other versions."""
    publish(work, environment, value=0.9)
    publish(work, environment, value=0.8)
    alone = [api.get(f"/models/perceptron/versions/{number}").json() for number in (2, 1)]

    assert alone == versions(api, "perceptron")


@pytest.mark.parametrize("path", ["perceptron/versions/2", "cnn/versions/1", "%00/versions/1", "%00"])
def test_an_unknown_version_is_not_found(api: TestClient, work: Work, environment: Path, path: str) -> None:
    """This holds for any name and on both databases; the answer names the route to look at."""
    publish(work, environment)

    assert "GET /models" in problem(api.get(f"/models/{path}"), 404)["detail"]


@pytest.mark.parametrize("number", ["0", "-1", "2147483648", "99999999999999999999", "one", "1.5"])
def test_an_invalid_version_number_is_refused(api: TestClient, number: str) -> None:
    """The number is checked before any query, because the database rejects some of these numbers."""
    assert pointers(api.get(f"/models/perceptron/versions/{number}")).keys() == {"/version"}


def test_a_network_without_a_version_is_not_found(api: TestClient) -> None:
    """A known and an unknown network both give 404; the answer says what to do."""
    known, unknown = (problem(api.get(f"/models/{model}"), 404)["detail"] for model in ("cnn", "resnet"))

    assert "GET /models" in known
    assert "GET /models" in unknown or "cnn" in unknown
