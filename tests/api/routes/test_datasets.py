"""Uploaded data sets: accepted and refused uploads, and the names of data sets."""

import gzip
import io
import json
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from safetensors.numpy import load
from starlette.testclient import TestClient
from structlog.testing import capture_logs
from support.worker_tools import Work
from typer.testing import CliRunner

from api.cli.app import app
from api.client import Chiffre
from api.http import errors
from api.http.errors import BadInput
from api.inputs.archives import read_archive
from api.main import create_app
from ml.datasets import Arrays
from tests.api.tools import pointers, problem, publish
from worker.settings import settings

ZIP = {"Content-Type": "application/zip"}
RNG = np.random.default_rng(6)
IMAGES = RNG.integers(0, 256, (120, 9, 7), np.uint8)
LABELS = np.arange(120) % 3


def npz(**arrays: Any) -> bytes:
    """Return an archive as numpy.savez writes it."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def idx(array: np.ndarray) -> bytes:
    """Return an IDX file of bytes: http://yann.lecun.com/exdb/mnist."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def zipped(method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> bytes:
    """Return a zip archive."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def send(api: TestClient, content: bytes, name: str = "letters", **query: Any) -> Any:
    """Post a data set."""
    return api.post("/datasets", params={"name": name, **query}, content=content, headers=ZIP)


def test_the_same_images_are_the_same_data_set_in_every_file_format(api: TestClient) -> None:
    """Floats in 0..1, text labels, and IDX files, compressed or not, give the hash of the plain arrays."""
    names = np.array(["a", "b", "c"])
    archives = [
        npz(images=IMAGES, labels=LABELS.astype(np.uint8)),
        npz(images=IMAGES[:, None] / 255, labels=LABELS[:, None].astype(float)),
        npz(images=IMAGES[..., None], labels=names[LABELS]),
        zipped(**{"train-images-idx3-ubyte": idx(IMAGES), "train-labels-idx1-ubyte": idx(LABELS)}),
        zipped(**{"x/images.gz": gzip.compress(idx(IMAGES)), "x/labels.gz": gzip.compress(idx(LABELS))}),
    ]
    found = [send(api, archive, f"set{n}").json() for n, archive in enumerate(archives)]

    expected = Arrays(IMAGES[:, None], LABELS.astype(np.uint8)).sha256()
    assert [(entry["sha256"], entry["shape"]) for entry in found] == [(expected, [1, 9, 7])] * 5
    assert found[2]["classes"] == ["a", "b", "c"]
    assert (found[0]["train"], found[0]["validation"], found[0]["test"]) == (86, 22, 12)


def test_other_images_under_the_same_name_are_a_new_version(api: TestClient) -> None:
    """Uploading equal images again makes no new version, and each version stays available."""
    first, again = send(api, npz(images=IMAGES, labels=LABELS)), send(api, npz(images=IMAGES, labels=LABELS))
    second = send(api, npz(images=255 - IMAGES, labels=LABELS))

    assert [first.status_code, again.status_code, second.status_code] == [201, 200, 201]
    assert again.json() == first.json()
    assert second.headers["location"] == "/datasets/letters/versions/2"
    assert api.get("/datasets/letters/versions/1").json() == first.json()
    assert [v["version"] for v in api.get("/datasets/letters").json()["versions"]] == [2, 1]
    newest = {entry["name"]: entry["version"] for entry in api.get("/datasets").json()["items"]}
    assert newest == {"mnist": None, "digits": None, "letters": 2}
    assert api.get("/catalog").json()["datasets"]["letters@2"]["sha256"] == second.json()["sha256"]
    assert api.get("/catalog?dataset=letters@1").json()["networks"]["perceptron"]["weights"] == 63 * 3 + 3


def test_a_specification_is_pinned_to_the_newest_version_at_submission(api: TestClient) -> None:
    """A later upload does not change the data set of the job."""
    first = send(api, npz(images=IMAGES, labels=LABELS)).json()
    job = api.post("/jobs/train", json={"model": "shallow", "dataset": "letters"}).json()
    send(api, npz(images=255 - IMAGES, labels=LABELS))
    found = api.get(f"/jobs/{job['id']}").json()

    assert (found["dataset"], found["spec"]["dataset"]) == ("letters@1", "letters@1")
    assert first["dataset"] == "letters@1"
    assert api.post("/jobs/train", json={"model": "shallow", "dataset": "letters"}).json()["dataset"] == "letters@2"


IDX_OF_70 = struct.pack(">HBB70I", 0, 8, 70, 120, *[1] * 69)
BAD: dict[str, tuple[bytes, str]] = {
    "no archive": (b"PK\x03\x04 and no more", "#"),
    "pickled": (npz(images=np.array([{}] * 120, object), labels=LABELS), "#/images.npy"),
    "squeezed by another method": (zipped(zipfile.ZIP_BZIP2, images=idx(IMAGES), labels=idx(LABELS)), "#"),
    "too many members": (zipped(**{str(n): b"" for n in range(2000)}), "#"),
    "a member without a name": (zipped(n_a_m_e=b"", images=idx(IMAGES)).replace(b"n_a_m_e", bytes(7)), "#"),
    "no labels": (npz(images=IMAGES), "#/labels"),
    "two of images": (npz(images=IMAGES, more_images=IMAGES, labels=LABELS), "#/images"),
    "too few": (npz(images=IMAGES[:99], labels=LABELS[:99]), "#/images"),
    "another number of labels": (npz(images=IMAGES, labels=LABELS[:-1]), "#/labels"),
    "flat": (npz(images=IMAGES.reshape(120, -1), labels=LABELS), "#/images"),
    "four channels": (npz(images=np.zeros((120, 4, 9, 7), np.uint8), labels=LABELS), "#/images"),
    "pixels above white": (npz(images=IMAGES.astype(float), labels=LABELS), "#/images"),
    "pixels that are none": (npz(images=np.full(IMAGES.shape, np.nan), labels=LABELS), "#/images"),
    "a label below zero": (npz(images=IMAGES, labels=LABELS - 1), "#/labels/0"),
    "a label too high": (npz(images=IMAGES, labels=np.where(np.arange(120) == 5, 2**60, LABELS)), "#/labels/5"),
    "an infinite label": (npz(images=IMAGES, labels=np.where(np.arange(120) == 5, np.inf, LABELS)), "#/labels/5"),
    "half a label": (npz(images=IMAGES, labels=LABELS / 2), "#/labels"),
    "a class without images": (npz(images=IMAGES, labels=LABELS * 2), "#/labels"),
    "one class": (npz(images=IMAGES, labels=LABELS * 0, classes=np.array(["a"])), "#/classes"),
    "too many classes": (npz(images=IMAGES, labels=LABELS, classes=np.arange(257).astype(str)), "#/classes"),
    "a name too long": (npz(images=IMAGES, labels=LABELS, classes=np.array(["a", "b", "c" * 101])), "#/classes"),
    "equal names": (npz(images=IMAGES, labels=LABELS, classes=np.array(["a", "a", "b"])), "#/classes"),
    "a name unknown": (npz(images=IMAGES, labels=np.array(["a", "b", "c"])[LABELS], classes=["a", "b"]), "#/labels/2"),
    "a short file": (zipped(images=idx(IMAGES)[:-1], labels=idx(LABELS)), "#/images"),
    "a name that is no UTF-8": (zipped(é=b"", images=idx(IMAGES)).replace("é".encode(), b"\xff\xfe"), "#"),
    "of 70 dimensions": (zipped(images=IDX_OF_70 + bytes(120), labels=idx(LABELS)), "#/images"),
    "of no kind": (zipped(images=b"images", labels=idx(LABELS)), "#/images"),
    "two members of one name": (
        zipped(**{"train/images": idx(IMAGES), "test/images": idx(IMAGES), "labels": idx(LABELS)}),
        "#/images",
    ),
    "no texts": (zipped(images=idx(IMAGES), labels=npz(a=1)), "#/labels"),
}


@pytest.mark.parametrize("name", BAD)
def test_unusable_data_is_refused_with_a_pointer(shared_api: TestClient, name: str) -> None:
    """The answer is 422 with a pointer, and nothing is stored."""
    content, pointer = BAD[name]
    response = send(shared_api, content, "unusable")

    assert list(pointers(response, 422)) == [pointer]
    assert shared_api.get("/datasets/unusable").status_code == 404


def test_invalid_unicode_is_refused(shared_api: TestClient) -> None:
    """Numpy itself would fail on labels with code points outside Unicode."""
    labels = np.full(120, 0x7FFFFFFF, np.uint32).view("U1")

    assert list(pointers(send(shared_api, npz(images=IMAGES, labels=labels)), 422)) == ["#/labels.npy"]


@pytest.mark.parametrize("packed", [False, True, "in parts"])
def test_an_archive_that_exceeds_the_limit_is_not_unpacked(
    packed: bool | str, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test has bombs of a few kilobytes: one member, a nested member, and members that are each below the limit."""
    monkeypatch.setenv("CHIFFRE_MAX_DATASET_BYTES", str(1 << 20))
    settings.cache_clear()
    bomb = bytes(16 << 20)
    with TestClient(create_app(), base_url="http://127.0.0.1") as api:
        parts = {f"part{n}": gzip.compress(idx(np.zeros((900, 1000), np.uint8))) for n in range(2)}
        members = parts if packed == "in parts" else {"images": gzip.compress(bomb) if packed else bomb}
        response = send(api, zipped(**members, labels=idx(LABELS)))
        large = send(api, RNG.bytes((1 << 20) + 1))

    assert "CHIFFRE_MAX_DATASET_BYTES" in problem(response, 422)["errors"][0]["detail"]
    assert "CHIFFRE_MAX_DATASET_BYTES" in problem(large, 413)["detail"]


def test_a_member_larger_than_its_declared_size_is_not_unpacked() -> None:
    """The sender of an archive can write any size into it."""
    bomb = 64 << 20
    content = zipped(images=bytes(bomb), labels=idx(LABELS)).replace(struct.pack("<L", bomb), struct.pack("<L", 100))
    tracemalloc.start()
    try:
        with pytest.raises(BadInput):
            read_archive(io.BytesIO(content), 1 << 20)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20


def test_texts_are_counted_before_they_become_strings() -> None:
    """A few kilobytes of zeros would become hundreds of megabytes of Python strings."""
    many = 1 << 18
    images, texts = np.zeros((many, 1, 1), np.uint8), np.arange(many).astype("U6")
    archives = [npz(images=IMAGES, labels=LABELS, classes=texts), npz(images=images, labels=texts)]
    for content, pointer in zip(archives, ("#/classes", "#/labels"), strict=True):
        tracemalloc.start()
        try:
            with pytest.raises(BadInput) as raised:
                read_archive(io.BytesIO(content), 1 << 24)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

        assert [error.pointer for error in raised.value.errors] == [pointer]
        assert peak < 95 * many


@pytest.mark.parametrize("images", [IMAGES, np.zeros((120, 1000, 1), np.uint8)], ids=["small", "large"])
def test_a_full_temporary_folder_is_reported(
    shared_api: TestClient, monkeypatch: pytest.MonkeyPatch, images: np.ndarray
) -> None:
    """The answer is 507 while the body arrives; the log says how to free space."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "w+b"))  # noqa: SIM115
    # A logger that was used before keeps its earlier processors, which `capture_logs` does not see.
    monkeypatch.setattr(errors, "log", structlog.get_logger())
    with capture_logs() as logs:
        full = send(shared_api, zipped(zipfile.ZIP_STORED, images=idx(images), labels=idx(LABELS)))
    monkeypatch.undo()
    found = send(shared_api, npz(images=IMAGES, labels=LABELS), "roomy")

    assert problem(full, 507)
    assert [log["error"].endswith("name another folder with TMPDIR") for log in logs] == [True]
    assert found.status_code in (200, 201)


@pytest.mark.parametrize("name", ["mnist", "Letters", "a@1", "a.b", "..", "a" * 64])
def test_a_reserved_or_invalid_name_is_refused(shared_api: TestClient, name: str) -> None:
    """A name of a built-in data set is taken. A name also cannot look like a version or a path."""
    response = send(shared_api, npz(images=IMAGES, labels=LABELS), name)

    assert response.status_code == (409 if name == "mnist" else 422)


def test_another_content_type_is_refused(shared_api: TestClient) -> None:
    """The answer is 415, as for other bodies."""
    assert problem(shared_api.post("/datasets?name=a", content=b"", headers={"Content-Type": "text/csv"}), 415)


def test_images_of_an_uploaded_data_set_are_predicted_at_their_own_size(
    api: TestClient, work: Work, environment: Path
) -> None:
    """A name alone means the newest version with a champion; a name with a version means that version."""
    send(api, npz(images=IMAGES, labels=np.array(["a", "b", "c"])[LABELS]))
    publish(work, environment, "perceptron", dataset="letters", search_space={"learning_rate": 0.01})
    send(api, npz(images=255 - IMAGES, labels=np.array(["a", "b", "c"])[LABELS]))
    octets = {"Content-Type": "application/octet-stream"}
    answers = [
        api.post(f"/predict?dataset={name}", content=IMAGES[0].tobytes(), headers=octets)
        for name in ("letters", "letters@1")
    ]
    wrong = api.post("/predict?dataset=letters", content=bytes(784), headers=octets)

    assert [answer.status_code for answer in answers] == [200, 200]
    assert {answer.json()["dataset"] for answer in answers} == {"letters@1"}
    assert {answer.json()["label"] for answer in answers} <= {"a", "b", "c"}
    assert "63 bytes" in problem(wrong, 422)["errors"][0]["detail"]
    assert problem(api.post("/predict?dataset=letters@2", content=bytes(63), headers=octets), 404)
    assert pointers(api.post("/predict?dataset=unheard", content=bytes(63), headers=octets)).keys() == {"?dataset"}


@pytest.mark.parametrize("name", ["letters", "letters@1"])
def test_a_predict_job_may_name_an_uploaded_data_set(api: TestClient, work: Work, environment: Path, name: str) -> None:
    """The name must exist, may have a version, and may be in the body or in the query."""
    send(api, npz(images=IMAGES, labels=np.array(["a", "b", "c"])[LABELS]))
    publish(work, environment, "perceptron", dataset="letters", search_space={"learning_rate": 0.01})
    array = io.BytesIO()
    np.save(array, IMAGES)
    of_dataset = api.post("/jobs/predict", json={"model": "perceptron", "dataset": name})
    query = {"model": "perceptron", "dataset": name}
    of_images = api.post(
        "/jobs/predict", params=query, content=array.getvalue(), headers={"Content-Type": "application/x-npy"}
    )
    unknown = api.post("/jobs/predict", json={"model": "perceptron", "dataset": "letters@2"})

    for answer in (of_dataset, of_images):
        assert (answer.status_code, answer.json().get("dataset")) == (202, "letters@1"), answer.text
    assert pointers(unknown).keys() == {"#/dataset"}


def test_a_version_is_evaluated_over_http(shared_api: TestClient, shared_work: Work, shared_artifacts: Path) -> None:
    """Errors name the field that is wrong."""
    publish(shared_work, shared_artifacts)
    asked = {"model": "perceptron", "version": 1, "dataset": "digits"}
    posted = shared_api.post("/jobs/evaluate", json=asked)

    assert posted.status_code == 202, posted.text
    assert (posted.json()["kind"], posted.json()["dataset"]) == ("evaluate", "digits")
    assert posted.json()["spec"]["resize"] == "bilinear"
    for field, value in (("model", "vgg"), ("dataset", "unheard"), ("resize", "cubist")):
        assert pointers(shared_api.post("/jobs/evaluate", json={**asked, field: value})).keys() == {f"#/{field}"}
    assert problem(shared_api.post("/jobs/evaluate", json={**asked, "version": 9}), 404)
    assert problem(shared_api.post("/jobs/evaluate", json={**asked, "dataset": "mnist"}), 409)


def test_the_command_adds_a_data_set_from_two_idx_files(url: str, tmp_path: Path) -> None:
    """Afterwards the command lists the data set with the others."""
    run = CliRunner(env={"CHIFFRE_URL": url}).invoke
    images, labels = tmp_path / "images.gz", tmp_path / "labels"
    images.write_bytes(gzip.compress(idx(IMAGES)))
    labels.write_bytes(idx(LABELS))
    add = ["datasets", "add", "bars", str(images)]
    added = run(app, [*add, str(labels), "--classes", "x,y,z", "--json"])
    listed = run(app, ["datasets"])
    alone = run(app, add)

    assert added.exit_code == 0, added.output
    assert json.loads(added.stdout)["classes"] == ["x", "y", "z"]
    assert "bars@1" in listed.stdout
    with Chiffre(url) as client:
        kept = load(client.data("bars", 1))
    assert np.array_equal(kept["images"][:, 0], IMAGES)
    assert np.array_equal(kept["labels"], LABELS)
    assert alone.exit_code == 2
