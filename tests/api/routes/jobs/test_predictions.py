"""Batch prediction over HTTP: accepted and refused requests, and the file of predictions."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import orjson
import pytest
from sqlalchemy import func, select, update
from sqlmodel import col
from starlette.testclient import TestClient
from support.prediction_tools import Predictions
from support.worker_tools import Work
from typer.testing import CliRunner

from api.cli.app import app
from api.client import Chiffre
from api.inputs import uploads
from api.routes.jobs.predictions import _row
from ml.canonical.canonical import canonical
from ml.datasets import datasets
from tests.api.tools import eventually, pointers, problem, publish
from worker.database.tables import Job, ModelVersion, UsedDataset

NPY, LINES = {"Content-Type": "application/x-npy"}, {"Content-Type": "application/jsonl"}
IMAGES = np.random.default_rng(3).integers(0, 256, (1500, 784), np.uint8)
IMAGES[7] = 0  # an image of which 0..255 and 0..1 say the same
ROUTE = "/jobs/predict"
OURS = "/jobs/predict?model=perceptron&dataset=digits"

Body = tuple[bytes, dict[str, str]]


@pytest.fixture(scope="module")
def predictions(shared_work: Work, shared_artifacts: Path) -> Predictions:
    """The module's database and files with two versions; the first is the champion."""
    publish(shared_work, shared_artifacts, dataset="digits", value=0.9)
    publish(shared_work, shared_artifacts, dataset="digits", value=0.8, seed=1)
    return Predictions(shared_work, shared_artifacts)


@pytest.fixture
def batch(predictions: Predictions, shared_api: TestClient) -> Iterator[TestClient]:
    """The module's API; jobs that were submitted and not run are cancelled afterwards."""
    yield shared_api
    for job in shared_api.get("/jobs", params={"limit": 1000}).json()["items"]:
        shared_api.post(f"/jobs/{job['id']}/cancel")
    wait_for_removals(shared_api)


def wait_for_removals(api: TestClient) -> None:
    """Wait until the files that earlier requests left without a row are removed; one thread does so, in order."""
    api.app.state.removals.submit(int).result()  # type: ignore[attr-defined]


def npy(array: np.ndarray) -> bytes:
    """Return an array in numpy.save's format."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def lines(*values: Any) -> bytes:
    """A JSONL file."""
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def posted(api: TestClient, path: str = ROUTE, **request: Any) -> dict[str, Any]:
    """Submit a job and return it."""
    response = api.post(path, **request)
    assert response.status_code == 202, response.text
    found: dict[str, Any] = response.json()
    assert response.headers["location"] == f"/jobs/{found['id']}"
    return found


def answered(api: TestClient, predictions: Predictions, path: str = ROUTE, **request: Any) -> list[dict[str, Any]]:
    """Submit a job, run it, and download its predictions."""
    job_id = posted(api, path, **request)["id"]
    predictions.run()
    response = api.get(f"/jobs/{job_id}/predictions")
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


def asked(api: TestClient, images: list[Any]) -> list[dict[str, Any]]:
    """The answers of POST /predict for the same images."""
    found: list[dict[str, Any]] = []
    for first in range(0, len(images), 1000):
        body = {"model": "perceptron", "dataset": "digits", "images": images[first : first + 1000], "top_k": 1}
        found += api.post("/predict", json=body).json()["predictions"]
    return found


def jobs(work: Work) -> int:
    """The number of predict jobs."""
    with work.database.reading() as session:
        return session.scalar(select(func.count()).select_from(Job).where(col(Job.kind) == "predict")) or 0


# --- what is accepted


def test_a_job_over_a_data_set_says_which_version_it_asks(batch: TestClient) -> None:
    """It is the current champion, by number; the images are validation images unless the request says otherwise."""
    job = posted(batch, json={"model": "perceptron", "dataset": "digits"})

    assert (job["kind"], job["state"], job["trial_limit"], job["result"]) == ("predict", "queued", 0, None)
    assert job["spec"] == {
        "model": "perceptron",
        "version": 1,
        "dataset": "digits",
        "subset": "validation",
        "canonical": False,
        "split": None,
        "resize": None,
    }
    assert batch.get(f"/jobs/{job['id']}").json() == job
    assert job["id"] in [one["id"] for one in batch.get("/jobs").json()["items"]]


def test_a_version_that_is_no_champion_can_be_asked(batch: TestClient, predictions: Predictions) -> None:
    """Its number suffices, without its data set; its answers differ from the champion's."""
    champion = answered(batch, predictions, json={"model": "perceptron", "dataset": "digits"})
    other = answered(batch, predictions, json={"model": "perceptron", "version": 2})

    assert [one["truth"] for one in other] == [one["truth"] for one in champion]
    assert [one["label"] for one in other] != [one["label"] for one in champion]


def test_the_result_stands_in_the_job(batch: TestClient, predictions: Predictions) -> None:
    """The accuracy equals the one counted from the file."""
    job_id = posted(batch, json={"model": "perceptron", "dataset": "digits", "subset": "test"})["id"]
    predictions.run()
    job = batch.get(f"/jobs/{job_id}").json()
    answers = [json.loads(line) for line in batch.get(f"/jobs/{job_id}/predictions").text.splitlines()]
    right = sum(one["label"] == one["truth"] for one in answers)

    assert (job["state"], job["stop_reason"], job["error"]) == ("completed", None, None)
    assert job["result"]["accuracy"] == right / len(answers)
    assert sum(map(sum, job["result"]["confusion_matrix"])) == job["result"]["images"] == len(answers) == 180
    assert job["result"]["classes"] == list("0123456789")


def test_an_uploaded_array_is_answered_as_predict_answers_it(batch: TestClient, predictions: Predictions) -> None:
    """Each image gets the same answer, even for more images than /predict accepts at once."""
    answers = answered(batch, predictions, OURS, content=npy(IMAGES), headers=NPY)
    direct = asked(batch, IMAGES.tolist())

    assert [one["index"] for one in answers] == list(range(len(IMAGES)))
    assert [one["label"] for one in answers] == [one["label"] for one in direct]
    assert [one["digit"] for one in answers] == [one["digit"] for one in direct]
    assert [one["confidence"] for one in answers] == pytest.approx([one["confidence"] for one in direct], abs=2e-6)


@pytest.mark.parametrize(
    "array",
    [
        IMAGES[:5].reshape(5, 28, 28),
        IMAGES[:5].reshape(5, 1, 28, 28),
        IMAGES[:5] / 255,
        (IMAGES[:5] / 255).astype(np.float32),
        IMAGES[:5].astype(np.float64),
        np.asfortranarray(IMAGES[:5]),
        IMAGES[:5].astype(">i4"),
    ],
    ids=["28×28", "1×28×28", "0..1", "float32", "float64", "Fortran", "big-endian"],
)
def test_an_array_may_have_many_forms(batch: TestClient, predictions: Predictions, array: np.ndarray) -> None:
    """All forms stand for the same images."""
    answers = answered(batch, predictions, OURS, content=npy(array), headers=NPY)
    direct = asked(batch, IMAGES[:5].tolist())

    assert [one["label"] for one in answers] == [one["label"] for one in direct]
    assert [one["confidence"] for one in answers] == pytest.approx([one["confidence"] for one in direct], abs=2e-6)


def test_lines_are_answered_in_their_places(batch: TestClient, predictions: Predictions) -> None:
    """Lines keep their ids. Unusable lines say why, and do not affect the others."""
    bad = [0] * 783
    body = lines(
        {"pixels": IMAGES[0].tolist(), "id": "ä.png", "label": "7"},
        {"pixels": bad, "id": "short"},
        {"pixels": IMAGES[1].reshape(28, 28).tolist(), "label": 3},
        {"pixels": [*bad, 256]},
        {"pixels": [*bad, True]},
        {"pixels": [*bad, None]},
        {"pixels": IMAGES[2].tolist(), "label": "cat"},
        {"pixels": IMAGES[2].tolist(), "id": "x" * 201},
        {"pixels": IMAGES[2].tolist(), "name": "x"},
        [1],
        {},
    )
    body += b"{\n" + b'{"pixels": [' + b"[" * 5000 + b"\n" + lines({"pixels": (IMAGES[2] / 255).tolist()}).rstrip()
    answers = answered(batch, predictions, OURS, content=body, headers=LINES)
    direct = asked(batch, IMAGES[:3].tolist())
    good = [answers[0], answers[2], answers[13]]
    errors = {one["index"]: one["error"] for one in answers if "error" in one}

    assert [one["index"] for one in answers] == list(range(14))
    assert [one["label"] for one in good] == [one["label"] for one in direct]
    assert [one.get("truth") for one in good] == ["7", "3", None]
    assert [one.get("id") for one in answers[:3]] == ["ä.png", "short", None]
    assert errors.keys() == {1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
    assert errors[1] == "#/pixels: 784 numbers are needed, not 783"
    assert errors[3] == errors[4] == errors[5] == "#/pixels/783: not allowed; give a number from 0 to 255"
    assert errors[6].startswith("#/label: unknown class; use one of 0, 1")
    assert errors[7] == "#/id: not an id; give a string of at most 200 characters"
    assert errors[11] == errors[12] == "#: not valid JSON; give one object per line"


def test_known_labels_of_lines_are_counted(batch: TestClient, predictions: Predictions) -> None:
    """The accuracy counts labelled images only."""
    digits = datasets["digits"].load()
    some = [{"pixels": digits.images[i].ravel().tolist(), "label": str(digits.labels[i])} for i in range(20)]
    body = lines(*some, {"pixels": IMAGES[0].tolist()}, {"pixels": []})
    job_id = posted(batch, OURS, content=body, headers={"Content-Type": "application/x-ndjson"})["id"]
    predictions.run()
    result = batch.get(f"/jobs/{job_id}").json()["result"]
    direct = asked(batch, [one["pixels"] for one in some])
    right = sum(one["label"] == sent["label"] for one, sent in zip(direct, some, strict=True))

    assert (result["images"], result["unusable"], result["labelled"]) == (22, 1, 20)
    assert result["accuracy"] == right / 20


def test_images_can_be_brought_to_the_data_sets_form(batch: TestClient, predictions: Predictions) -> None:
    """Each image is changed as the canonicaliser does it."""
    inverted = 255 - datasets["digits"].load().images[:6, 0]
    answers = answered(batch, predictions, f"{OURS}&canonical=true", content=npy(inverted), headers=NPY)
    direct = asked(batch, [canonical(image).pixels.ravel().tolist() for image in inverted])

    assert [one["label"] for one in answers] == [one["label"] for one in direct]
    assert [one["confidence"] for one in answers] == pytest.approx([one["confidence"] for one in direct], abs=2e-6)


# --- once


@pytest.mark.parametrize(
    ("path", "request_"),
    [
        (ROUTE, {"json": {"model": "perceptron", "dataset": "digits"}}),
        (OURS, {"content": npy(IMAGES[:2]), "headers": NPY}),
    ],
    ids=["data set", "upload"],
)
def test_the_same_request_with_the_same_key_creates_one_job(
    batch: TestClient, predictions: Predictions, shared_artifacts: Path, path: str, request_: dict[str, Any]
) -> None:
    """There is one upload too; another body or query with the same key is refused."""
    key = {"Idempotency-Key": f"once-{path}"}
    headers = {**request_.get("headers", {}), **key}
    first = posted(batch, path, **{**request_, "headers": headers})
    before, files = jobs(predictions.work), len(list(shared_artifacts.rglob("uploads/*")))
    again = posted(batch, path, **{**request_, "headers": headers})
    other = batch.post(f"{OURS}&canonical=true", content=npy(IMAGES[:2]), headers={**NPY, **key})
    wait_for_removals(batch)

    assert again["id"] == first["id"]
    assert (jobs(predictions.work), len(list(shared_artifacts.rglob("uploads/*")))) == (before, files)
    assert pointers(other).keys() == {"Idempotency-Key"}


# --- what is refused


@pytest.mark.parametrize(
    ("sent", "pointer"),
    [
        ({}, "#/model"),
        ({"model": "nobody"}, "#/model"),
        ({"model": "perceptron", "dataset": "nothing"}, "#/dataset"),
        ({"model": "perceptron", "subset": "some"}, "#/subset"),
        ({"model": "perceptron", "subset": None}, "#/subset"),
        ({"model": "perceptron", "version": "1"}, "#/version"),
        ({"model": "perceptron", "version": 0}, "#/version"),
        ({"model": "perceptron", "canonical": 1}, "#/canonical"),
        ({"model": "perceptron", "pixels": [0] * 784}, "#/pixels"),
        ([], "#/"),
    ],
)
def test_a_body_that_names_no_data_set_is_refused(batch: TestClient, sent: Any, pointer: str) -> None:
    """The answer names the wrong field."""
    assert pointers(batch.post(ROUTE, json=sent)).keys() == {pointer}


def test_an_unknown_field_is_answered_with_the_known_fields(batch: TestClient) -> None:
    """The fields are those of a body that names a data set."""
    detail = pointers(batch.post(ROUTE, json={"model": "perceptron", "pixels": []}))["#/pixels"]

    assert detail.startswith("unknown field; known fields are ")
    assert {"model", "version", "dataset", "subset", "canonical"} == set(detail.rpartition("are ")[2].split(", "))


@pytest.mark.parametrize(
    ("query", "body", "pointer"),
    [
        ("", (npy(IMAGES[:2]), NPY), "?model"),
        ("?model=nobody", (npy(IMAGES[:2]), NPY), "?model"),
        ("?model=perceptron&dataset=nothing", (npy(IMAGES[:2]), NPY), "?dataset"),
        ("?model=perceptron&version=x", (npy(IMAGES[:2]), NPY), "?version"),
        ("?model=perceptron&subset=test", (npy(IMAGES[:2]), NPY), "?subset"),
        ("?model=perceptron", (b"{}", {"Content-Type": "application/json"}), "?model"),
        ("", (b"{", {"Content-Type": "application/json"}), "#"),
    ],
)
def test_a_query_that_does_not_fit_is_refused(batch: TestClient, query: str, body: Body, pointer: str) -> None:
    """The answer names the wrong parameter."""
    content, headers = body

    assert pointers(batch.post(f"{ROUTE}{query}", content=content, headers=headers)).keys() == {pointer}


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ((b"", NPY), {"#"}),
        ((npy(IMAGES[:2])[:-1], NPY), {"#"}),
        ((npy(IMAGES[:2, :700]), NPY), {"#"}),
        ((npy(np.array(["a"])), NPY), {"#"}),
        ((npy(np.empty((0, 784), np.uint8)), NPY), {"#"}),
        ((npy(np.full((2, 784), np.nan)), NPY), {"#/0", "#/1"}),
        ((b"", LINES), {"#"}),
        ((b"\n\n", LINES), {"#/0", "#/1"}),
        ((lines(*[{"pixels": []}] * 30), LINES), {f"#/{place}" for place in range(20)}),
    ],
    ids=["nothing", "cut", "narrow", "texts", "empty", "NaN", "no line", "empty lines", "nothing usable"],
)
def test_an_upload_of_which_nothing_can_be_used_is_refused(
    batch: TestClient, predictions: Predictions, shared_artifacts: Path, body: Body, named: set[str]
) -> None:
    """It is refused at once, and nothing is stored."""
    before = jobs(predictions.work)
    files = sorted(shared_artifacts.rglob("*"))
    content, headers = body

    assert pointers(batch.post(OURS, content=content, headers=headers)).keys() == named
    assert jobs(predictions.work) == before
    assert sorted(shared_artifacts.rglob("*")) == files


def test_too_many_lines_are_refused(batch: TestClient) -> None:
    """The errors of all lines would fill the memory."""
    body = b"{}\n" * (uploads.MAX_LINES + 1)

    assert "at most" in pointers(batch.post(OURS, content=body, headers=LINES))["#"]


@pytest.mark.parametrize("character", ['"', "\\", "\x01", "😀"], ids=ascii)
def test_what_is_told_of_all_lines_fits_into_the_header_of_a_file(character: str) -> None:
    """A safetensors header holds 100 MB. The longest ids and names, of the widest characters, fit."""
    count, allowed = 256, 800 // (len(json.dumps(character, ensure_ascii=False).encode()) - 2)
    printed = character if character.isprintable() else "😀"  # as names of classes are
    names = tuple(printed * 98 + f"{number:02}" for number in range(99))
    bad = {"pixels": [0] * 784, "id": character * min(allowed, uploads.MAX_ID), "label": "none of them"}
    found = uploads.read_jsonl(lines(*[bad] * count, {"pixels": [0] * 784}), (1, 28, 28), names)
    header = int.from_bytes(found.to_bytes()[:8], "little")

    assert len(found.errors) == len(found.ids) == count
    assert all(error.startswith("#/label") for error in found.errors.values())
    assert uploads.MAX_LINES * (header / count + 4) < 85e6  # places of up to five digits instead of three, twice


def test_an_id_that_takes_too_much_room_is_refused() -> None:
    """Only its own line is refused."""
    odd = {"pixels": [0] * 784, "id": "\x01" * 134}
    found = uploads.read_jsonl(lines(odd, {"pixels": [0] * 784}), (1, 28, 28), ("a", "b"))

    assert found.errors == {0: "#/id: too many control characters; leave some out"}


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/plain"}, {"Content-Type": "image/png"}, {**NPY, "Content-Encoding": "gzip"}]
)
def test_other_content_types_are_refused(batch: TestClient, headers: dict[str, str]) -> None:
    """The answer lists the accepted types."""
    problem(batch.post(OURS, content=npy(IMAGES[:1]), headers=headers), 415)


def test_a_body_that_is_too_large_is_refused(batch: TestClient) -> None:
    """The setting allows 16 MiB of images and no more, with or without a declared length."""
    declared = batch.post(OURS, content=bytes(16 * 2**20 + 1), headers=NPY)
    counted = batch.post(OURS, content=iter([bytes(2**20)] * 17), headers=NPY)

    assert "CHIFFRE_MAX_IMAGE_BYTES" in problem(declared, 413)["detail"]
    assert problem(counted, 413)


def test_more_bodies_than_memory_are_put_off(batch: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is 503 with Retry-After, and the reserved memory is released."""
    monkeypatch.setattr(batch.app.state.image_bodies, "limit", 3000)  # type: ignore[attr-defined]
    refused = batch.post(OURS, content=npy(IMAGES[:5]), headers=NPY)
    accepted = batch.post(OURS, content=npy(IMAGES[:3]), headers=NPY)

    assert problem(refused, 503)
    assert "retry-after" in refused.headers
    assert accepted.status_code == 202


@pytest.mark.parametrize(
    "sent",
    [
        {"model": "cnn", "dataset": "digits"},
        {"model": "perceptron"},
        {"model": "perceptron", "version": 99},
        {"model": "perceptron", "version": 1, "dataset": "mnist"},
    ],
    ids=["no champion", "none on mnist", "no version", "of another data set"],
)
def test_without_a_version_there_is_no_job(batch: TestClient, sent: dict[str, Any]) -> None:
    """The answer is 404 and says what to do."""
    problem(batch.post(ROUTE, json=sent), 404)


def test_a_data_set_that_has_changed_is_not_divided_as_before(batch: TestClient, predictions: Predictions) -> None:
    """Its validation images would differ, so the answer is 409; uploaded images are still classified."""
    with predictions.work.database.writing() as session:
        session.add(
            UsedDataset(sha256="1" * 64, name="digits", images=1, shape=[1, 28, 28], classes=list("0123456789"))
        )
        session.flush()
        session.execute(update(ModelVersion).where(col(ModelVersion.version) == 2).values(dataset_sha256="1" * 64))
    refused = batch.post(ROUTE, json={"model": "perceptron", "version": 2})
    accepted = batch.post(f"{ROUTE}?model=perceptron&version=2", content=npy(IMAGES[:1]), headers=NPY)
    with predictions.work.database.writing() as session:
        same = datasets["digits"].sha256
        session.execute(update(ModelVersion).where(col(ModelVersion.version) == 2).values(dataset_sha256=same))

    assert "other images" in problem(refused, 409)["detail"]
    assert accepted.status_code == 202


# --- the file of results


@pytest.fixture(scope="module")
def done(predictions: Predictions, shared_api: TestClient) -> str:
    """The id of a completed predict job."""
    body = lines({"pixels": IMAGES[0].tolist(), "id": 'a,"b', "label": "1"}, {"pixels": []}, {"pixels": [0] * 784})
    job_id: str = posted(shared_api, OURS, content=body, headers=LINES)["id"]
    predictions.run()
    return job_id


def test_the_file_has_its_hash_for_a_tag(batch: TestClient, predictions: Predictions, done: str) -> None:
    """A client that has the file gets 304."""
    response = batch.get(f"/jobs/{done}/predictions")
    (file,) = predictions.files(done, "predictions")
    again = batch.get(f"/jobs/{done}/predictions", headers={"If-None-Match": response.headers["etag"]})

    assert response.headers["content-type"].startswith("application/jsonl")
    assert response.headers["etag"] == f'"{file.sha256}"'
    assert (again.status_code, again.content) == (304, b"")


def test_the_file_can_be_had_as_csv(batch: TestClient, done: str) -> None:
    """It has the same rows, and its own ETag."""
    response = batch.get(f"/jobs/{done}/predictions", headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(response.text)))
    answers = [json.loads(line) for line in batch.get(f"/jobs/{done}/predictions").text.splitlines()]

    assert response.headers["content-type"].startswith("text/csv")
    assert response.headers["etag"] != batch.get(f"/jobs/{done}/predictions").headers["etag"]
    assert [row["index"] for row in rows] == ["0", "1", "2"]
    assert [row["id"] for row in rows] == ['a,"b', "", ""]
    assert [row["label"] for row in rows] == [one.get("label", "") for one in answers]
    assert rows[1]["error"] == answers[1]["error"]


def test_no_text_of_the_csv_is_a_formula() -> None:
    """A spreadsheet runs neither an image's id nor a class name; numbers do not change."""
    line = {"index": 0, "id": '=HYPERLINK("http://x")', "label": "@SUM(1)", "confidence": 0.5, "reason": "plain"}

    assert _row(orjson.dumps(line)) == line | {"id": '\'=HYPERLINK("http://x")', "label": "'@SUM(1)"}


def test_without_a_file_it_is_said_what_to_do(batch: TestClient) -> None:
    """The job has not run yet, was cancelled, is of another kind, or does not exist."""
    body = {"model": "perceptron", "dataset": "digits"}
    waiting, cancelled = posted(batch, json=body)["id"], posted(batch, json=body)["id"]
    batch.post(f"/jobs/{cancelled}/cancel")
    tune = batch.post("/jobs/tune", json=body).json()["id"]
    texts = [problem(batch.get(f"/jobs/{one}/predictions"), 404)["detail"] for one in (waiting, cancelled, tune, "00")]

    assert ["queued" in texts[0], "cancelled" in texts[1], "POST /jobs/predict" in texts[2]] == [True] * 3
    assert texts[3] == "there is no such job; GET /jobs lists them"


# --- what else can be asked of such a job


@pytest.mark.parametrize(
    ("control", "status"),
    [
        (lambda api, path: api.post(f"{path}/pause"), 202),
        (lambda api, path: api.post(f"{path}/resume"), 202),
        (lambda api, path: api.post(f"{path}/cancel"), 202),
        (lambda api, path: api.patch(path, json={"budget": {"trials": 5}}), 409),
        (lambda api, path: api.post(f"{path}/trials", json={"params": {}}), 409),
        (lambda api, path: api.post(f"{path}/trials/0/retry"), 409),
        (lambda api, path: api.post(f"{path}/trials/0/cancel"), 404),
        (lambda api, path: api.get(f"{path}/trials"), 200),
        (lambda api, path: api.get(f"{path}/trials", headers={"Accept": "text/csv"}), 200),
        (lambda api, path: api.get(f"{path}/trials/0"), 404),
    ],
    ids=["pause", "resume", "cancel", "extend", "enqueue", "retry", "cut", "trials", "csv", "trial"],
)
def test_a_predict_job_answers_sensibly(
    batch: TestClient, control: Callable[[TestClient, str], Any], status: int
) -> None:
    """Every route of a job has a sensible answer for a predict job."""
    path = f"/jobs/{posted(batch, json={'model': 'perceptron', 'dataset': 'digits'})['id']}"
    response = control(batch, path)

    assert response.status_code == status, response.text


def test_a_job_that_has_completed_cannot_be_resumed(batch: TestClient, done: str) -> None:
    """The answer says to submit another job, because there is no budget to raise."""
    assert "post a new job" in problem(batch.post(f"/jobs/{done}/resume"), 409)["detail"]


def test_uploaded_images_are_removed_when_their_job_is_cancelled(batch: TestClient, shared_artifacts: Path) -> None:
    """The answer does not wait for the store."""
    before = set(shared_artifacts.rglob("uploads/*"))
    job = posted(batch, OURS, content=npy(IMAGES[:2]), headers=NPY)
    stored = set(shared_artifacts.rglob("uploads/*")) - before
    batch.post(f"/jobs/{job['id']}/cancel")
    wait_for_removals(batch)

    assert len(stored) == 1
    assert set(shared_artifacts.rglob("uploads/*")) == before


def test_its_events_are_its_transitions(batch: TestClient, done: str) -> None:
    """They are queued, running and completed; then the stream ends."""
    with batch.stream("GET", f"/jobs/{done}/events") as stream:
        states = [json.loads(line[6:])["state"] for line in stream.iter_lines() if line.startswith("data: ")]

    assert states == ["queued", "running", "completed"]


# --- the command


@pytest.fixture
def run(environment: Path, url: str) -> Callable[..., Any]:
    """Run `chiffre predict-all` against an API on a separate port."""

    def run(*arguments: object) -> Any:
        return CliRunner(env={"CHIFFRE_URL": url}).invoke(app, ["predict-all", *map(str, arguments)])

    return run


@pytest.fixture
def version(work: Work, environment: Path) -> Predictions:
    """The test's database with a version."""
    publish(work, environment, dataset="digits")
    return Predictions(work, environment)


@contextmanager
def worked(predictions: Predictions) -> Iterator[None]:
    """A worker that takes the next job as soon as there is one."""
    thread = Thread(target=lambda: predictions.run(eventually(predictions.work.leases.claim, 30)))
    thread.start()
    yield
    thread.join()


def test_the_command_classifies_a_file_and_keeps_the_results(
    run: Callable[..., Any], version: Predictions, tmp_path: Path
) -> None:
    """It waits for the predictions, and prints the result."""
    digits = datasets["digits"].load()
    some = [{"pixels": digits.images[i].ravel().tolist(), "label": str(digits.labels[i])} for i in range(9)]
    (tmp_path / "some.jsonl").write_bytes(lines(*some))
    with worked(version):
        done = run("perceptron", "--dataset", "digits", "--file", tmp_path / "some.jsonl", "-o", tmp_path / "out.jsonl")
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]

    assert done.exit_code == 0, done.output
    assert [one["truth"] for one in answers] == [one["label"] for one in some]
    assert "9 images, 0 unusable" in done.output
    assert "accuracy" in done.output


def test_the_command_posts_a_job_over_a_data_set(run: Callable[..., Any], version: Predictions) -> None:
    """With --json it prints the API's JSON."""
    done = run("perceptron", "--dataset", "digits", "--subset", "test", "--version", 1, "--json")
    job = json.loads(done.stdout)

    assert (job["kind"], job["state"], job["spec"]["subset"]) == ("predict", "queued", "test")


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (["cnn"], 1, "chiffre tune"),
        (["perceptron", "--dataset", "digits", "--subset", "some"], 1, "subset"),
        (["perceptron", "--file", "x.txt"], 2, "x.txt"),
        (["perceptron", "--file", "x.npy"], 1, "cannot be read"),
        (["perceptron", "--file", "x.npy", "--subset", "test"], 2, "--subset"),
    ],
)
def test_the_command_tells_what_is_wrong(
    run: Callable[..., Any], version: Predictions, arguments: list[str], status: int, word: str
) -> None:
    """The message is one sentence; the status is 1, or 2 for a usage error."""
    done = run(*arguments)

    assert done.exit_code == status
    assert word in done.stderr


def test_a_job_is_shown_with_what_it_has_found(url: str, version: Predictions) -> None:
    """The result stands below the job's row."""
    with Chiffre(url) as client:
        job_id = client.predict_all("perceptron", dataset="digits")["id"]
        version.run()
        done = CliRunner(env={"CHIFFRE_URL": url}).invoke(app, ["job", job_id])

        assert f"{client.job(job_id)['result']['images']} images, 0 unusable" in done.stdout
    assert "predicted" in done.stdout
