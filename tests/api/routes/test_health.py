"""Liveness and readiness, and the API's answers while the database is away."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from starlette.testclient import TestClient
from support.worker_tools import Work

from tests.api.tools import BLANK, TUNE, eventually, problem, publish
from worker.local import free_port
from worker.settings import settings

BASE_URL = "http://127.0.0.1"
ASKING = [
    ("GET", "/readyz"),
    ("POST", "/jobs/tune"),
    ("POST", "/jobs/train"),
    ("GET", "/jobs"),
    ("GET", "/jobs/000000000000"),
    ("GET", "/jobs/000000000000/trials"),
    ("POST", "/jobs/000000000000/cancel"),
    ("GET", "/models"),
]


@contextmanager
def started() -> Iterator[TestClient]:
    """Start the API with settings from the environment, and yield its client."""
    from api.main import create_app

    settings.cache_clear()
    with TestClient(create_app(), base_url=BASE_URL, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(params=["a port where nothing listens", "a folder that is not there"])
def away(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    """Yield the API with a database that cannot be reached."""
    server = f"postgresql://nobody:secret@127.0.0.1:{free_port()}/chiffre"
    url = server if "port" in request.param else f"sqlite:///{tmp_path}/nowhere/chiffre.db"
    monkeypatch.setenv("CHIFFRE_HOME", str(tmp_path))
    monkeypatch.setenv("CHIFFRE_DATABASE_URL", url)
    monkeypatch.delenv("CHIFFRE_BROKER_URL", raising=False)
    with started() as client:
        yield client
    settings.cache_clear()


@contextmanager
def closed(url: str) -> Iterator[None]:
    """Close a Postgres database: drop every connection and accept none until the end of the context."""
    server = conninfo_to_dict(url)
    name = server.pop("dbname")
    with psycopg.connect(dbname="postgres", autocommit=True, **server) as connection:
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        try:
            yield
        finally:
            connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_a_process_that_answers_is_alive(api: TestClient) -> None:
    """Liveness does not check anything else."""
    assert api.get("/livez").json() == {"status": "alive"}


@pytest.mark.parametrize("path", ["/livez", "/v2/health/live"])
def test_a_process_whose_threads_all_wait_is_alive(api: TestClient, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process must not be killed because its storage does not answer."""

    async def wait(*_: object, **__: object) -> None:
        raise AssertionError("no thread is free")

    monkeypatch.setattr("fastapi.routing.run_in_threadpool", wait)

    assert api.get(path).status_code == 200


def test_an_api_with_its_database_is_ready(api: TestClient) -> None:
    """A missing broker does not matter: workers find jobs by polling."""
    response = api.get("/readyz")

    assert response.status_code == 200
    assert response.json() == {"status": "ready", "broker": False, "models": [], "failing": {}}


def test_readiness_lists_the_loaded_champions(api: TestClient, work: Work, environment: Path) -> None:
    """The list has each network and data set with a loaded champion, in order."""
    publish(work, environment, "shallow")
    publish(work, environment, "cnn", dataset="digits")
    expected = ["cnn/digits", "shallow/mnist"]

    assert eventually(lambda: api.get("/readyz").json()["models"] == expected)


def test_without_a_broker_readiness_answers_at_once(api: TestClient) -> None:
    """If no broker is configured, the API does not wait for one."""
    began = monotonic()
    api.get("/readyz")

    assert monotonic() - began < 1


def test_without_its_database_the_api_is_alive_and_not_ready(away: TestClient) -> None:
    """The answer is 503 with Retry-After, without the database's address or password."""
    ready = away.get("/readyz")
    problem(ready, 503)

    assert away.get("/livez").status_code == 200
    assert int(ready.headers["retry-after"]) > 0
    assert "secret" not in ready.text
    assert "nowhere" not in ready.text


@pytest.mark.parametrize(("method", "path"), ASKING)
def test_without_its_database_every_route_that_needs_it_gives_503(away: TestClient, method: str, path: str) -> None:
    """The answer is 503, never 500."""
    response = away.request(method, path, json={"model": "perceptron"})
    problem(response, 503)

    assert "retry-after" in response.headers


def test_without_its_database_predict_gives_503(away: TestClient) -> None:
    """Without the database, the API cannot know if a version is published."""
    problem(away.post("/predict", json={"pixels": BLANK}), 503)


def test_without_its_database_invalid_input_is_still_refused(away: TestClient) -> None:
    """Input that is invalid without a look at the database is refused."""
    problem(away.post("/jobs/tune", json={"model": "resnet"}), 422)
    problem(away.post("/predict", json={"pixels": []}), 422)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_while_the_database_is_closed_predict_still_answers(
    api: TestClient, work: Work, environment: Path, database_url: str
) -> None:
    """Loaded models keep serving and new jobs get 503; once the database is back, everything works."""
    publish(work, environment)
    before = api.post("/predict", json={"pixels": BLANK})
    with closed(database_url):
        ready, posted = api.get("/readyz"), api.post("/jobs/tune", json=TUNE)
        during = api.post("/predict", json={"pixels": BLANK})
    after = api.post("/jobs/tune", json=TUNE)

    problem(ready, 503)
    problem(posted, 503)
    assert during.status_code == 200
    assert during.json() == before.json()
    assert after.status_code == 202
    assert api.get("/readyz").status_code == 200


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_job_refused_without_a_database_is_not_stored_later(api: TestClient, database_url: str) -> None:
    """After a 503 a client can submit again without creating two jobs."""
    with closed(database_url):
        problem(api.post("/jobs/tune", json=TUNE), 503)

    assert api.get("/jobs").json()["items"] == []


def test_a_database_without_tables_is_not_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the file was moved away, SQLite creates an empty one, which cannot accept jobs."""
    monkeypatch.setenv("CHIFFRE_DATABASE_URL", f"sqlite:///{tmp_path}/moved.db")
    monkeypatch.setenv("CHIFFRE_HOME", str(tmp_path))
    with started() as client:
        posted, ready = client.post("/jobs/tune", json=TUNE), client.get("/readyz")
    settings.cache_clear()

    problem(posted, 503)
    problem(ready, 503)


def test_the_thread_that_follows_champions_ends_with_the_api(environment: Path) -> None:
    """The thread must stop before the database closes, so that no connection stays open."""
    before = set(threading.enumerate())
    with started():
        pass
    left = [thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()]

    assert "roster" not in left
