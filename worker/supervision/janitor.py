"""The janitor: a thread of every process that takes back what was lost, rings for what waits, and tidies up."""

from random import Random
from threading import Event, Thread
from time import time

import structlog
from sqlalchemy import select
from sqlmodel import col

from worker.artifacts.store import Store, drop_files
from worker.database.engine import Database
from worker.database.tables import Artifact, Job
from worker.ledger.idempotency import forget
from worker.ledger.leases import Leases
from worker.supervision.notify import ring

TIDY_SECONDS = 600.0  # between two looks for files that nobody needs and keys that nobody sends again
YOUNG_SECONDS = 3600.0  # how old a file without a row must be: its row is written within seconds after it

log = structlog.get_logger()


class Janitor:
    """One process's share of the upkeep; that others do the same is no harm."""

    def __init__(self, database: Database, leases: Leases, store: Store | None, poll_seconds: float) -> None:
        """`store` where this process also looks after files: it takes a list of them all."""
        self.database = database
        self.leases = leases
        self.store = store
        self.poll_seconds = poll_seconds
        self._closing = Event()
        self._thread = Thread(target=self._keep_up, name="janitor", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """End, after what is being done."""
        self._closing.set()
        self._thread.join()

    def look(self) -> None:
        """Take back the packs of workers that are gone, and ring where work waits for somebody."""
        self.leases.reap()
        if self.leases.work_waits():
            ring()

    def tidy(self) -> None:
        """Remove files that no row points to, and forget old keys."""
        forget(self.database)
        if self.store is not None:
            drop_files(self.store, stray(self.database, self.store))

    def _keep_up(self) -> None:
        tidied, pace = 0.0, Random()  # noqa: S311 - no secret
        # At times of their own, so that processes which were started together do not all ask at once.
        while not self._closing.wait(self.poll_seconds * pace.uniform(0.75, 1.25)):
            try:
                self.look()
                if time() - tidied > TIDY_SECONDS:
                    tidied = time()
                    self.tidy()
            except Exception as error:  # the boundary of a thread: the database may be away, the next look tries again
                log.warning("the upkeep has to wait", error=str(error))


def stray(database: Database, store: Store, young_seconds: float = YOUNG_SECONDS) -> list[str]:
    """Old files of this database's jobs that no row names.

    They are left by a process that died between a file and its row, or after the row was deleted; others are no
    business of ours. Nor are data sets: their names are their hashes, which another database with this store may name.
    """
    written = [key for key, at in store.keys() if time() - at >= young_seconds]  # noqa: SIM118 - no dict
    with database.reading() as session:
        jobs = set(session.scalars(select(col(Job.id))))
        named = set(session.scalars(select(col(Artifact.path))))
    return [key for key in written if key.partition("/")[0] in jobs and key not in named]
