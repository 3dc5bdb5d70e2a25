"""Published versions and champions."""

from pathlib import Path
from typing import Any

from starlette.testclient import TestClient
from worker_tools import Work

from ml.datasets import datasets
from tests.api.tools import problem, publish


def versions(api: TestClient, model: str) -> list[dict[str, Any]]:
    """A network's versions."""
    found: list[dict[str, Any]] = api.get(f"/models/{model}").json()["versions"]
    return found


def test_without_versions_the_list_is_empty(api: TestClient) -> None:
    """Nothing is published at first."""
    assert api.get("/models").json() == {"items": []}


def test_the_list_names_every_network_with_a_version(api: TestClient, work: Work, environment: Path) -> None:
    """Networks by name, each as it shows itself."""
    for model in ("shallow", "cnn"):
        publish(work, environment, model)
    items = api.get("/models").json()["items"]

    assert [item["model"] for item in items] == ["cnn", "shallow"]
    assert items == [api.get(f"/models/{name}").json() for name in ("cnn", "shallow")]


def test_the_newest_version_comes_first_and_one_is_the_champion(api: TestClient, work: Work, environment: Path) -> None:
    """Each publication is a new version; the best is the champion, whenever it came."""
    for value in (0.9, 0.95, 0.92):
        publish(work, environment, value=value)
    found = versions(api, "perceptron")

    assert [version["version"] for version in found] == [3, 2, 1]
    assert [version["champion"] for version in found] == [False, True, False]


def test_each_data_set_has_a_champion_of_its_own(api: TestClient, work: Work, environment: Path) -> None:
    """A version is only compared with others of the same data."""
    publish(work, environment, value=0.99)
    publish(work, environment, value=0.9, dataset="digits")

    assert [version["champion"] for version in versions(api, "perceptron")] == [True, True]


def test_versions_of_another_split_or_objective_do_not_compete(api: TestClient, work: Work, environment: Path) -> None:
    """A higher number on other validation images is no better."""
    publish(work, environment, value=0.9)
    publish(work, environment, value=0.99, split="official")
    publish(work, environment, value=0.99, objective="val_loss")

    assert [version["champion"] for version in versions(api, "perceptron")] == [False, False, True]


def test_a_version_says_where_it_came_from(api: TestClient, work: Work, environment: Path) -> None:
    """Job, trial, hyper-parameters, data, what it reached, and the hash of its weights."""
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


def test_a_network_without_a_version_is_not_found(api: TestClient) -> None:
    """One that is known and one that is not: both have nothing to show, and the answer says where to look."""
    known, unknown = (problem(api.get(f"/models/{model}"), 404)["detail"] for model in ("cnn", "resnet"))

    assert "GET /models" in known
    assert "GET /models" in unknown or "cnn" in unknown
