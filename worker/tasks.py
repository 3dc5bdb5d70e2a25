"""The Celery task, and the start and end of a worker process."""

import os
import secrets
import socket
from functools import partial
from threading import Thread
from typing import Any

import structlog
from celery.signals import setup_logging, worker_init, worker_shutdown, worker_shutting_down

from worker.artifacts.store import drop_files, store_of
from worker.database.engine import Database
from worker.ledger.leases import Leases
from worker.logs import configure_logging
from worker.queue import WAKE, app
from worker.settings import settings
from worker.supervision.janitor import Janitor
from worker.supervision.supervisor import Supervisor
from worker.supervision.trainer_pool import Trainers

log = structlog.get_logger()

_supervisor: Supervisor | None = None  # of this worker process; it polls for work even if the broker is away


@app.task(name=WAKE)  # type: ignore[untyped-decorator]
def wake() -> None:
    """Work on all packs that are waiting."""
    if _supervisor is not None:
        _supervisor.work()


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log(**_: Any) -> None:
    configure_logging("worker")


@worker_init.connect  # type: ignore[untyped-decorator]
def _start(**_: Any) -> None:
    try:
        _begin()
    except Exception as error:  # broad on purpose: Celery would go on without a supervisor and ignore every message
        log.critical("the worker cannot start", error=str(error))
        raise SystemExit(1) from error


def _begin() -> None:
    global _supervisor
    config = settings()
    owner = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
    store = store_of(config)
    database = Database(config.database, on_unneeded=partial(drop_files, store))
    leases = Leases(database, owner, config.lease_seconds)
    _supervisor = Supervisor(leases, Trainers(config.trainers), config.poll_seconds)
    Thread(target=_supervisor.poll, daemon=True).start()
    Janitor(database, leases, store, config.poll_seconds).start()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _drain(**_: Any) -> None:
    if _supervisor is not None:
        _supervisor.drain()


@worker_shutdown.connect  # type: ignore[untyped-decorator]
def _stop(**_: Any) -> None:
    if _supervisor is not None:
        _supervisor.close()
