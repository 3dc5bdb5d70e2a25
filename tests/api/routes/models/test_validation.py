"""A version's mistakes on validation images, and random images."""

from pathlib import Path

import numpy as np
import pytest
import torch
from starlette.testclient import TestClient
from support.worker_tools import Work

from ml.datasets import data_split, datasets
from tests.api.tools import Version, pointers, problem, publish


@pytest.fixture
def published(work: Work, environment: Path) -> Version:
    """Return a version with untrained weights, of the small data set."""
    return publish(work, environment, dataset="digits", seed=1)


def test_the_confusion_matrix_and_the_mistakes_agree_with_torch(api: TestClient, published: Version) -> None:
    """Both cover all validation images of the version's job; each mistake has its pixels."""
    digits = datasets["digits"].load()
    places = data_split(len(digits), None, "random", published.job.spec["seed"]).validation
    with torch.inference_mode():
        found = published.module(torch.from_numpy(digits.images[places]).float() / 255).argmax(1).numpy()
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (digits.labels[places], found), 1)
    answer = api.get("/models/perceptron/versions/1/validation").json()
    row, column = np.argwhere(matrix - np.diag(matrix.diagonal()) > 0)[0].tolist()
    mistakes = api.get(f"/models/perceptron/versions/1/mistakes?actual={row}&predicted={column}").json()
    wrong = places[(digits.labels[places] == row) & (found == column)]

    assert answer["confusion_matrix"] == matrix.tolist()
    assert (answer["images"], answer["classes"]) == (len(places), list("0123456789"))
    assert sum(bin_["images"] for bin_ in answer["bins"]) == len(places)
    assert mistakes["count"] == len(wrong)
    assert {item["index"] for item in mistakes["items"]} <= set(wrong.tolist())
    for item in mistakes["items"]:
        assert item["pixels"] == digits.images[item["index"]].ravel().tolist()
        assert (item["actual"], item["predicted"]) == (str(row), str(column))


def test_a_version_trained_on_a_subset_of_images_is_validated_on_that_subset(
    api: TestClient, work: Work, environment: Path
) -> None:
    """The job used 400 images and trained on 320 of them, so the other 80 are the validation images."""
    publish(work, environment, dataset="digits", seed=1, images=400)

    assert api.get("/models/perceptron/versions/1/validation").json()["images"] == 80


@pytest.mark.long
@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("actual=x&predicted=1", "?actual"),
        ("actual=1&predicted=%00", "?predicted"),
        ("actual=1&predicted=1", "?predicted"),
        ("actual=1", "?predicted"),
    ],
)
def test_an_invalid_pair_of_classes_is_refused(api: TestClient, published: Version, query: str, pointer: str) -> None:
    """The error names the parameter."""
    assert pointers(api.get(f"/models/perceptron/versions/1/mistakes?{query}")).keys() == {pointer}


@pytest.mark.parametrize("path", ["validation", "mistakes?actual=1&predicted=2"])
def test_an_unknown_version_is_not_found(api: TestClient, path: str) -> None:
    """The answer names the route to look at."""
    assert "GET /models" in problem(api.get(f"/models/perceptron/versions/1/{path}"), 404)["detail"]


def test_a_random_image_is_from_the_requested_part(api: TestClient) -> None:
    """Each image has its label, and no image comes twice in thirty requests."""
    digits = datasets["digits"].load()
    images = [api.get("/datasets/digits/images/random?part=validation").json() for _ in range(30)]
    part = data_split(len(digits), None, "random", seed=0).validation

    assert {image["index"] for image in images} <= set(part.tolist())
    assert len({image["index"] for image in images}) == 30
    for image in images:
        assert image["pixels"] == digits.images[image["index"]].ravel().tolist()
        assert image["label"] == str(digits.labels[image["index"]])


@pytest.mark.long
def test_the_cache_of_images_is_bounded(api: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred large images would take a gigabyte, so the cache limits bytes and parts; others are read again."""
    monkeypatch.setattr("api.subprocesses.image_looks.SAMPLED_BYTES", 100)
    monkeypatch.setattr("api.subprocesses.image_looks.SUBSETS", 1)
    shelves = api.app.state.looks._samples  # type: ignore[attr-defined]
    for _ in range(2):
        assert api.get("/datasets/digits/images/random").status_code == 200
        assert [len(shelf) for shelf in shelves.values()] == [0]
    api.get("/datasets/digits/images/random?part=train")

    assert list(shelves) == [("digits", "train")]


def test_an_unknown_data_set_or_part_is_refused(api: TestClient) -> None:
    """The answer lists the existing data sets, or names the parameter."""
    assert "mnist" in problem(api.get("/datasets/letters/images/random"), 404)["detail"]
    assert pointers(api.get("/datasets/digits/images/random?part=all")).keys() == {"?part"}
