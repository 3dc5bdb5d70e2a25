"""A worker in this process, with real training processes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.worker_tools import Work

from worker.artifacts.store import drop_files, store_of
from worker.ledger.leases import Leases
from worker.settings import settings
from worker.supervision.supervisor import Supervisor
from worker.supervision.trainer_pool import Trainers


@pytest.fixture
def trainers(request: pytest.FixtureRequest, environment: Path) -> Iterator[Trainers]:
    """Training processes on the test's database, one if the test does not say how many."""
    trainers = Trainers(getattr(request, "param", 1))
    yield trainers
    trainers.close()


@pytest.fixture
def supervisor(work: Work, trainers: Trainers) -> Supervisor:
    """A worker whose leases last six seconds."""
    work.database.on_unneeded = partial(drop_files, store_of(settings()))
    return Supervisor(Leases(work.database, "tested", 6), trainers, poll_seconds=0.2)
