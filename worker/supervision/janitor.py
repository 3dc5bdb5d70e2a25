"""The janitor: a thread of every process that takes back lost packs, wakes workers and removes leftovers."""

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
from worker.supervision.notify import wake_worker

TIDY_SECONDS = 600.0  # between two removals of stray files and old idempotency keys
YOUNG_SECONDS = 3600.0  # age that a stray file must have; a row normally follows its file within seconds

log = structlog.get_logger()


class Janitor:
    """The upkeep thread of one process; several processes may run one at the same time."""

    def __init__(self, database: Database, leases: Leases, store: Store | None, poll_seconds: float) -> None:
        """Set up the thread; `start` starts it.

        Args:
            database: The database to look after.
            leases: The leases to take back when they expire.
            store: The store to remove stray files from, which lists all of its files; None: leave files alone.
            poll_seconds: Mean time between two rounds.
        """
        self.database = database
        self.leases = leases
        self.store = store
        self.poll_seconds = poll_seconds
        self._closing = Event()
        self._thread = Thread(target=self._keep_up, name="janitor", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def close(self) -> None:
        """Stop the thread after its current round, and wait for it."""
        self._closing.set()
        self._thread.join()

    def check(self) -> None:
        """Take back packs whose lease has expired, and wake a worker if any work is waiting."""
        self.leases.reap()
        if self.leases.work_waits():
            wake_worker()

    def tidy(self) -> None:
        """Remove stray files and old idempotency keys."""
        forget(self.database)
        if self.store is not None:
            drop_files(self.store, stray(self.database, self.store))

    def _keep_up(self) -> None:
        tidied, pace = 0.0, Random()  # noqa: S311 - no secret
        # The random pauses keep processes that started together from querying the database at the same moment.
        while not self._closing.wait(self.poll_seconds * pace.uniform(0.75, 1.25)):
            try:
                self.check()
                if time() - tidied > TIDY_SECONDS:
                    tidied = time()
                    self.tidy()
            except Exception as error:  # broad on purpose: the thread must survive any outage, and tries again
                log.warning("could not do the upkeep; trying again later", error=str(error))


def stray(database: Database, store: Store, young_seconds: float = YOUNG_SECONDS) -> list[str]:
    """Return the keys of old files that belong to jobs of this database, but to no row.

    A process that died between writing a file and its row leaves such a file, as does one that died after deleting a
    row. Files of other jobs are left alone, as another database may share the store. So are data sets: their keys are
    content hashes, to which the other database may refer.
    """
    written = [key for key, at in store.keys() if time() - at >= young_seconds]  # noqa: SIM118 - not a dict
    with database.reading() as session:
        jobs = set(session.scalars(select(col(Job.id))))
        named = set(session.scalars(select(col(Artifact.path))))
    return [key for key in written if key.partition("/")[0] in jobs and key not in named]
