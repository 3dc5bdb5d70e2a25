"""Prediction from artifacts in S3, and while S3 is away."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from starlette.testclient import TestClient
from support.s3_tools import Meddler, hand_on, meddler, new_bucket, point_at, refuse, s3_server
from support.worker_tools import Work

from ml.artifacts import Saved
from tests.api.tools import BLANK, eventually, problem, publish
from worker.artifacts.store import Store, store_of
from worker.errors import StorageAway
from worker.settings import settings

GREY = [128] * 784


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Yield the URL of an S3 server."""
    with s3_server() as url:
        yield url


@pytest.fixture
def faulty(environment: Path, s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Meddler]:
    """Yield a faulty proxy for S3; the settings name a bucket behind it."""
    with meddler(s3) as server:
        point_at(monkeypatch, server.url)
        monkeypatch.setenv("CHIFFRE_ARTIFACTS", f"s3://{new_bucket()}/artifacts")
        settings.cache_clear()
        yield server


@pytest.fixture
def api(faulty: Meddler) -> Iterator[TestClient]:
    """Yield the API on the test's database and bucket."""
    from api.main import create_app

    with TestClient(create_app(), base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def upload(folder: Path) -> Store:
    """Copy a folder to S3, and return the store."""
    store = store_of(settings())
    for path in folder.rglob("*.*"):
        store.write(path.relative_to(folder).as_posix(), path.read_bytes())
    return store


def version(api: TestClient) -> int | None:
    """Return the number of the version that predicts, None if there is none."""
    found: int | None = api.post("/predict", json={"pixels": BLANK}).json().get("version")
    return found


def test_a_champion_in_s3_predicts(api: TestClient, work: Work, tmp_path: Path) -> None:
    """The predictions equal torch's, like those of a champion in a folder."""
    published = publish(work, tmp_path / "local", spoil=lambda path: upload(tmp_path / "local"))
    answer = api.post("/predict", json={"pixels": GREY}).json()

    assert answer["probabilities"] == pytest.approx(published.answer(GREY, 255), abs=1e-5)
    assert answer["checkpoint_sha256"] == published.checkpoint_sha256


def test_while_s3_is_away_the_old_version_predicts(
    api: TestClient, work: Work, tmp_path: Path, faulty: Meddler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new version takes over by itself as soon as it can be read."""
    monkeypatch.setattr("api.prediction.roster.AWAY_SECONDS", 0.5)
    publish(work, tmp_path / "local", value=0.9, spoil=lambda path: upload(tmp_path / "local"))
    before = version(api)
    faulty.always = refuse(500, "InternalError")
    asked = len(faulty.seen)
    publish(work, tmp_path / "local", value=0.95, seed=2)
    tried = eventually(lambda: len(faulty.seen) > asked + 3)
    meanwhile = version(api)
    faulty.always = hand_on
    upload(tmp_path / "local")

    assert (before, meanwhile) == (1, 1)
    assert tried
    assert eventually(lambda: version(api) == 2, seconds=15)


class Stalled:
    """A store that does not answer until it is released."""

    def __init__(self) -> None:
        self.asked = Event()
        self.told = Event()

    def write(self, key: str, content: bytes) -> Saved:
        raise NotImplementedError

    def read(self, key: str, sha256: str) -> bytes:
        self.asked.set()
        self.told.wait()
        raise StorageAway("for the test")

    def pieces(self, key: str, sha256: str) -> Iterator[bytes]:
        raise NotImplementedError

    def remove(self, key: str) -> None:
        raise NotImplementedError

    def keys(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        raise NotImplementedError


def test_storage_that_stalls_does_not_block_requests(
    api: TestClient, work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request for the network being loaded soon gets an error; requests for others are answered."""
    monkeypatch.setattr("api.prediction.roster.PATIENCE_SECONDS", 0.5)
    publish(work, tmp_path / "local", spoil=lambda path: upload(tmp_path / "local"))
    first = version(api)
    stalled = api.app.state.roster.store = Stalled()  # type: ignore[attr-defined]
    publish(work, tmp_path / "local", "shallow")
    stalled.asked.wait()
    before = monotonic()
    problem(api.post("/predict", json={"pixels": GREY, "model": "shallow"}), 404)
    waited = monotonic() - before
    other = version(api)
    stalled.told.set()

    assert (first, other) == (1, 1)
    assert 0.5 <= waited < 3


def test_a_version_that_did_not_load_is_not_fetched_again_at_once(
    api: TestClient, work: Work, tmp_path: Path, faulty: Meddler
) -> None:
    """A damaged object is fetched neither every second nor by each request."""
    publish(work, tmp_path / "local", spoil=lambda path: (path.write_bytes(b"damaged"), upload(tmp_path / "local")))
    asked = eventually(lambda: version(api) is None and sum(method == "GET" for method, _ in faulty.seen))
    for _ in range(5):
        problem(api.post("/predict", json={"pixels": GREY}), 503)
    before = monotonic()
    api.app.state.roster.refresh()  # type: ignore[attr-defined]

    assert asked == 1
    assert sum(method == "GET" for method, _ in faulty.seen) == 1
    assert monotonic() - before < 1


def test_files_in_s3_are_downloaded(api: TestClient, work: Work, tmp_path: Path, faulty: Meddler) -> None:
    """The files arrive unchanged; while S3 refuses, the client gets a Retry-After."""
    publish(work, tmp_path / "local", spoil=lambda path: upload(tmp_path / "local"))
    (graph,) = (tmp_path / "local").rglob("*.onnx")
    found = api.get("/models/perceptron/versions/1/onnx")
    faulty.always = refuse(500, "InternalError")
    refused = api.get("/models/perceptron/versions/1/onnx")

    assert found.content == graph.read_bytes()
    problem(refused, 503)
    assert refused.headers["retry-after"]
