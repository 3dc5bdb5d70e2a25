"""Fixtures for the tests of the API: one API for a whole module, and one on a real port."""

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient
from support.worker_tools import Work

from worker.database.engine import Database
from worker.ledger.leases import Leases
from worker.ledger.ledger import Ledger
from worker.settings import settings

BASE_URL = "http://127.0.0.1"


@pytest.fixture(scope="module")
def shared_work(sqlite_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """Yield a SQLite database for all tests of a module, with its ledger and two workers."""
    path = tmp_path_factory.mktemp("shared") / "chiffre.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    # Long leases, because training in this process renews none, and the machine may be busy.
    yield Work(database, Ledger(database), Leases(database, "one", 600), Leases(database, "two", 600))
    database.close()


@pytest.fixture(scope="module")
def shared_artifacts(shared_work: Work) -> Path:
    """Return the folder of artifacts next to the module's database."""
    return Path(shared_work.database.url.database or "").parent / "artifacts"


@pytest.fixture(scope="module")
def shared_api(shared_work: Work, shared_artifacts: Path) -> Iterator[TestClient]:
    """Yield one API for all tests of a module, for requests that are independent of earlier rows."""
    from api.main import create_app

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CHIFFRE_HOME", str(shared_artifacts.parent))
        patch.setenv("CHIFFRE_DATABASE_URL", f"sqlite:///{shared_work.database.url.database}")
        patch.delenv("CHIFFRE_BROKER_URL", raising=False)
        settings.cache_clear()
        with TestClient(create_app(), base_url=BASE_URL, raise_server_exceptions=False) as client:
            yield client
    settings.cache_clear()


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """Run a real uvicorn in a thread, on a free port, and yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", timeout_graceful_shutdown=5))
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"  # connections wait in its queue until it accepts
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def url(environment: Path) -> Iterator[str]:
    """Yield the URL of the API on the test's database, served by a real uvicorn."""
    from api.main import create_app

    with serving(create_app()) as address:
        yield address
