"""`/predict?prefer=fastest-within:…`: the version that predicts."""

from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from support.worker_tools import Work

from api.inputs.options import Options
from api.prediction.preferences import Preference, Preferences
from tests.api.tools import BLANK, eventually, pointers, publish
from worker.database.tables import ModelVersion

CASES = [(0.9, 0.003), (0.899, 0.001), (0.897, 0.0005), (0.5, 0.0001)]  # accuracy on validation, latency in seconds


def version(number: int, accuracy: float, latency: float | None, **fields: Any) -> ModelVersion:
    """Return a version with the fields that a preference reads."""
    like = {"model": "cnn", "dataset": "mnist", "dataset_sha256": "a", "split": "random"}
    return ModelVersion(id=number, version=number, val_accuracy=accuracy, latency_seconds=latency, **{**like, **fields})


def answers(api: TestClient, prefer: str, **query: str) -> int:
    """Return the number of the version that predicts for a blank image."""
    answer = api.post("/predict", params={"prefer": prefer, **query}, json={"pixels": BLANK})
    assert answer.status_code == 200, answer.text
    number: int = answer.json()["version"]
    return number


@pytest.mark.parametrize(
    ("within", "expected"), [(0.0, [1]), (0.09, [1]), (0.1, [2, 1]), (0.3, [3, 2, 1]), (100.0, [4, 3, 2, 1])]
)
def test_accurate_enough_versions_are_ranked_by_latency(within: float, expected: list[int]) -> None:
    """A version is accurate enough within so many percentage points of the most accurate, the limit included."""
    versions = [version(number, *case) for number, case in enumerate(CASES, 1)]
    ranked = Preference("cnn", "mnist", within).ranked(versions, versions[0])

    assert [found.id for found in ranked] == expected


def test_only_versions_measured_on_the_same_images_are_compared() -> None:
    """Another split, other data, another network, and a version without a latency are left out."""
    champion = version(1, 0.9, 0.003)
    others = [
        version(2, 0.9, 0.001, split="official"),
        version(3, 0.9, 0.001, dataset_sha256="b"),
        version(4, 0.9, 0.001, model="mlp"),
        version(5, 0.9, 0.001, dataset="digits"),
        version(6, 0.9, None),
    ]

    assert [v.id for v in Preference("cnn", "mnist", 1.0).ranked([champion, *others], champion)] == [1]
    assert [v.id for v in Preference(None, "mnist", 1.0).ranked([champion, *others], champion)] == [4, 1]


def test_an_uploaded_data_set_may_be_named_without_its_version() -> None:
    """Only versions trained on the champion's data are compared."""
    champion = version(1, 0.9, 0.003, dataset="letters@2")
    others = [version(2, 0.9, 0.001, dataset="letters@2"), version(3, 0.9, 0.0005, dataset="letters@1")]

    assert [v.id for v in Preference("cnn", "letters", 1.0).ranked([champion, *others], champion)] == [2, 1]


def test_the_fastest_version_predicts_and_a_new_one_follows_within_two_seconds(
    api: TestClient, work: Work, environment: Path
) -> None:
    """The preference may be in the query or in the body; without a preference, the champion predicts."""
    for accuracy, latency in CASES[:3]:
        publish(work, environment, value=accuracy, measured={"latency_seconds": latency})
    body = {"pixels": BLANK, "prefer": "fastest-within:0.1", "model": "perceptron"}

    assert [answers(api, f"fastest-within:{within}") for within in ("0", "0.1", "0.3")] == [1, 2, 3]
    assert api.post("/predict", json=body).json()["version"] == 2
    assert api.post("/predict", json={"pixels": BLANK}).json()["version"] == 1
    publish(work, environment, value=0.9, measured={"latency_seconds": 1e-4})
    assert eventually(lambda: answers(api, "fastest-within:0") == 4, seconds=2)


def test_a_version_measured_on_few_images_is_not_compared(api: TestClient, work: Work, environment: Path) -> None:
    """Accuracy on forty images says little."""
    publish(work, environment, value=0.9, measured={"latency_seconds": 0.002})
    publish(work, environment, value=1.0, measured={"latency_seconds": 0.001}, images=200)

    assert answers(api, "fastest-within:5") == 1


def test_without_a_latency_the_champion_predicts(api: TestClient, work: Work, environment: Path) -> None:
    """Versions of an earlier release have no latency."""
    publish(work, environment, value=0.8)
    publish(work, environment, value=0.9)

    assert answers(api, "fastest-within:50") == 2


def test_a_version_that_does_not_load_is_skipped(api: TestClient, work: Work, environment: Path) -> None:
    """The next fastest version predicts instead."""
    publish(work, environment, value=0.9, measured={"latency_seconds": 0.002})
    publish(
        work,
        environment,
        value=0.9,
        measured={"latency_seconds": 0.001},
        spoil=lambda path: path.write_bytes(b"damaged"),
    )

    assert answers(api, "fastest-within:1", model="perceptron") == 1


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("prefer=fastest", "?prefer"),
        ("prefer=fastest-within:", "?prefer"),
        ("prefer=fastest-within:-1", "?prefer"),
        ("prefer=fastest-within:100.1", "?prefer"),
        ("prefer=fastest-within:nan", "?prefer"),
        ("prefer=fastest-within:1e2", "?prefer"),
        ("prefer=fastest-within:1%0A", "?prefer"),
        ("prefer=1", "?prefer"),
        ("prefer=fastest-within:1&model=cnn&version=2", "?prefer"),
    ],
)
def test_an_invalid_preference_is_refused(shared_api: TestClient, query: str, pointer: str) -> None:
    """The error points to the parameter `prefer`."""
    assert pointer in pointers(shared_api.post(f"/predict?{query}", json={"pixels": BLANK}))


def test_a_preference_is_documented(shared_api: TestClient) -> None:
    """The documentation lists `prefer` for the query and for the body."""
    operation = shared_api.get("/openapi.json").json()["paths"]["/predict"]["post"]
    bodies = operation["requestBody"]["content"]["application/json"]["schema"]["oneOf"]

    assert "prefer" in {parameter["name"] for parameter in operation["parameters"]}
    assert all("prefer" in body["properties"] for body in bodies)


def test_a_preference_that_is_no_longer_requested_is_dropped(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise every process would read all versions for every old preference once a second, for ever."""
    preferences = Preferences(work.database)
    looks: list[str] = []
    monkeypatch.setattr(preferences, "_files", lambda: looks.append("looked") or ({}, {}))
    preferences.follow(Options(prefer="fastest-within:1"))
    preferences.refresh({}, lambda files: None)
    monkeypatch.setattr("api.prediction.preferences.IDLE_SECONDS", -1.0)
    preferences.refresh({}, lambda files: None)

    assert looks == ["looked"]
