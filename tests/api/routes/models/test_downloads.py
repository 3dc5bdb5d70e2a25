"""Downloads of a version's files: complete and unchanged, or not at all."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from safetensors.numpy import load
from starlette.testclient import TestClient
from support.worker_tools import Work

from ml.artifacts import Saved
from tests.api.tools import Version, problem, publish
from worker.errors import StorageAway

FILES = {"checkpoint": "safetensors", "onnx": "onnx"}
VERSION = "/models/perceptron/versions/1"


@pytest.fixture
def published(work: Work, environment: Path) -> Version:
    """Return version 1 of the perceptron."""
    return publish(work, environment)


def file_of(folder: Path, version: Version, what: str) -> Path:
    """Return the path of a version's file."""
    return next((folder / version.job.id).glob(f"*.{FILES[what]}"))


@pytest.mark.parametrize("what", FILES)
def test_a_file_is_downloaded_unchanged(api: TestClient, published: Version, environment: Path, what: str) -> None:
    """Every byte is equal, the name has the network and the version, and the ETag is the file's hash."""
    response = api.get(f"{VERSION}/{what}")
    content = file_of(environment, published, what).read_bytes()

    assert response.status_code == 200
    assert response.content == content
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["content-length"] == str(len(content))
    assert response.headers["content-disposition"] == f'attachment; filename="perceptron-1.{FILES[what]}"'
    assert response.headers["etag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert response.headers["etag"].strip('"') == api.get(VERSION).json()[f"{what}_sha256"]


def test_the_files_hold_the_trained_network(api: TestClient, published: Version) -> None:
    """The graph gives torch's outputs, and the weights are torch's."""
    session = onnxruntime.InferenceSession(api.get(f"{VERSION}/onnx").content)
    pixels = np.random.default_rng(0).random((1, 1, 28, 28), np.float32)
    (outputs,) = session.run(["outputs"], {"pixels": pixels})
    powers = np.exp(outputs[0] - outputs.max())
    weights = load(api.get(f"{VERSION}/checkpoint").content)
    expected = published.module.state_dict()

    assert powers / powers.sum() == pytest.approx(published.answer(pixels.ravel().tolist(), 1), abs=1e-5)
    assert weights.keys() == expected.keys()
    assert all(np.array_equal(weights[name], tensor.numpy()) for name, tensor in expected.items())


@pytest.mark.parametrize("what", FILES)
@pytest.mark.usefixtures("published")
def test_a_known_etag_gets_304(api: TestClient, what: str) -> None:
    """If-None-Match may have the tag strong or weak, alone or in a list; the answer has the tag and no body."""
    tag = api.get(f"{VERSION}/{what}").headers["etag"]
    known = (tag, f"W/{tag}", f'"other", {tag}', "*")
    found = [api.get(f"{VERSION}/{what}", headers={"if-none-match": one}) for one in known]

    assert [(response.status_code, response.content) for response in found] == [(304, b"")] * 4
    assert {response.headers["etag"] for response in found} == {tag}


@pytest.mark.usefixtures("published")
def test_another_etag_gets_the_file(api: TestClient) -> None:
    """A header without a valid tag gives the file too."""
    known = ('"0123"', "", "0123", '"', api.get(f"{VERSION}/checkpoint").headers["etag"])
    found = [api.get(f"{VERSION}/onnx", headers={"if-none-match": one}).status_code for one in known]

    assert found == [200] * 5


@pytest.mark.parametrize("what", FILES)
@pytest.mark.parametrize("damage", [lambda path: path.write_bytes(b"damaged"), Path.unlink], ids=["damaged", "missing"])
def test_a_damaged_file_is_not_sent(
    api: TestClient, published: Version, environment: Path, what: str, damage: object
) -> None:
    """The answer is 404 and says what to do."""
    damage(file_of(environment, published, what))  # type: ignore[operator]
    detail = problem(api.get(f"{VERSION}/{what}"), 404)["detail"]

    assert "restore it or train again" in detail
    assert str(environment) not in detail


class Away:
    """Storage that cannot be reached."""

    def write(self, key: str, content: bytes) -> Saved:
        raise NotImplementedError

    def read(self, key: str, sha256: str) -> bytes:
        raise StorageAway("the bucket secret-name cannot be reached")

    def pieces(self, key: str, sha256: str) -> Iterator[bytes]:
        return iter((self.read(key, sha256),))

    def remove(self, key: str) -> None:
        raise NotImplementedError

    def keys(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        raise NotImplementedError


@pytest.mark.parametrize("what", FILES)
@pytest.mark.usefixtures("published")
def test_while_storage_is_away_the_client_is_told_to_retry(api: TestClient, what: str) -> None:
    """The answer is 503 with Retry-After, also for If-None-Match. Only the log names the storage."""
    tag = api.get(f"{VERSION}/{what}").headers["etag"]
    api.app.state.store = Away()  # type: ignore[attr-defined]
    response = api.get(f"{VERSION}/{what}")
    known = api.get(f"{VERSION}/{what}", headers={"if-none-match": tag})

    assert "secret-name" not in problem(response, 503)["detail"]
    assert int(response.headers["retry-after"]) > 0
    assert known.status_code == 304


@pytest.mark.usefixtures("published")
def test_an_unknown_version_has_no_files(api: TestClient) -> None:
    """The answer is 404 and names the route to look at."""
    paths = ("perceptron/versions/2", "cnn/versions/1", "%00/versions/1")
    details = [problem(api.get(f"/models/{path}/{what}"), 404)["detail"] for path in paths for what in (*FILES, "card")]

    assert all("GET /models" in detail for detail in details)
