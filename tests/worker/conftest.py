"""A worker in this process, with real training processes that stay warm for all tests of a module.

The processes know one database and one folder, so between tests only rows and files are removed.
"""

import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.gate import SABOTAGE
from support.warm import WarmTrainers
from support.worker_tools import Work

from worker.artifacts.store import drop_files, store_of
from worker.database.engine import Database
from worker.database.tables import Job
from worker.ledger.leases import Leases
from worker.settings import settings
from worker.supervision.supervisor import Supervisor
from worker.supervision.trainer_pool import Trainers


@pytest.fixture(scope="module")
def home_of_module(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """Return a folder with a migrated SQLite database for all tests of a module that train in processes."""
    home = tmp_path_factory.mktemp("home")
    shutil.copy(sqlite_template, home / "chiffre.db")
    return home


@pytest.fixture
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return the folder of all state: the module's for a test with trainers, otherwise a new one."""
    if "trainers" not in request.fixturenames:
        yield tmp_path
        return
    home: Path = request.getfixturevalue("home_of_module")
    yield home
    for path in home.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


@pytest.fixture
def sqlite_url(request: pytest.FixtureRequest, home: Path, sqlite_template: Path) -> Iterator[str]:
    """Return the URL of an empty, migrated SQLite database: the module's for a test with trainers, or a new one."""
    url = f"sqlite:///{home / 'chiffre.db'}"
    if "trainers" not in request.fixturenames:
        shutil.copy(sqlite_template, home / "chiffre.db")
        yield url
        return
    yield url
    database = Database(url)
    with database.writing() as session:
        for table in reversed(Job.metadata.sorted_tables):
            session.execute(table.delete())
    database.close()


@pytest.fixture(scope="module")
def warm_trainers() -> Iterator[WarmTrainers]:
    """Return the module's trainers, and close them after its last test."""
    warm = WarmTrainers()
    yield warm
    warm.close()


@pytest.fixture
def trainers(
    request: pytest.FixtureRequest, environment: Path, warm_trainers: WarmTrainers, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Trainers]:
    """Return training processes that use the test's database and its gate, one by default."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SABOTAGE), os.environ.get("PYTHONPATH", "")]))
    with warm_trainers.borrowed(getattr(request, "param", 1)) as trainers:
        yield trainers


@pytest.fixture
def supervisor(work: Work, trainers: Trainers) -> Supervisor:
    """Return a worker whose leases last six seconds."""
    work.database.on_unneeded = partial(drop_files, store_of(settings()))
    return Supervisor(Leases(work.database, "tested", 6), trainers, poll_seconds=0.2)
