"""The database: an engine, and sessions that read or write."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select
from sqlalchemy.engine import URL
from sqlmodel import Session

BUSY_SECONDS = 10  # the longest that a writer waits for another
IDLE_SECONDS = 5  # the longest that a transaction may be idle; ours last milliseconds
UNNEEDED = "unneeded"  # in a session's info: the keys that `note_unneeded` was given


class Database:
    """One database, SQLite or Postgres."""

    def __init__(self, url: str, on_unneeded: Callable[[Sequence[str]], object] | None = None) -> None:
        """Open a database.

        Args:
            url: In SQLAlchemy's form.
            on_unneeded: Removes stored files, given by key. It is called after a commit that leaves files without a
                row, and must not raise, as the transaction has succeeded. If it is None, the janitor removes them.
        """
        self.on_unneeded = on_unneeded
        self.url = make_url(url)
        self.engine = _sqlite_engine(self.url) if self.url.get_backend_name() == "sqlite" else _server_engine(self.url)
        self._writer = self.engine.execution_options(writes=True)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Open a session that only reads."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def at_one_instant(self) -> Iterator[Session]:
        """Open a session that only reads, and sees only what was committed before its first read."""
        with self.reading() as session:
            if self.url.get_backend_name() != "sqlite":  # its transactions always do
                session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Open a session in one transaction, which is committed at the end and rolled back by an exception.

        Files that `note_unneeded` was given are removed after the commit. After a rollback they stay.
        """
        with Session(self._writer, expire_on_commit=False) as session:
            with session.begin():
                yield session
            unneeded = sorted(session.info.get(UNNEEDED, ()))
        if unneeded and self.on_unneeded is not None:
            self.on_unneeded(unneeded)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def note_unneeded(session: Session, keys: Iterable[str]) -> None:
    """Note the keys of stored files that no row needs, to be removed after the commit of the session's transaction."""
    session.info.setdefault(UNNEEDED, set()).update(keys)


def one_at_a_time(session: Session, name: str) -> None:
    """Wait until no other transaction that has called this with the same name is open."""
    if session.get_bind().dialect.name == "postgresql":  # SQLite has one writer at a time
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(name))))


def _server_engine(url: URL) -> Engine:
    if url.drivername in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
    # A worker must not hang past its leases because the server cannot be reached. And no process must hang because
    # another was stopped in the middle of a transaction.
    limits = {
        "connect_timeout": 5,
        "tcp_user_timeout": BUSY_SECONDS * 1000,
        "options": f"-c lock_timeout={BUSY_SECONDS}s -c idle_in_transaction_session_timeout={IDLE_SECONDS}s",
    }
    return create_engine(
        url, pool_pre_ping=True, pool_size=10, max_overflow=30, pool_timeout=BUSY_SECONDS, connect_args=limits
    )


def _sqlite_engine(url: URL) -> Engine:
    engine = create_engine(url, module=_sqlite_module(), pool_size=10, max_overflow=30)
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _sqlite_module() -> Any:
    """Return the SQLite of the pysqlite3 wheel, as Python's own is often older than the WAL fix of 3.51.3."""
    try:
        from pysqlite3 import dbapi2
    except ImportError:  # no wheel for this platform
        import sqlite3 as dbapi2
    if dbapi2.sqlite_version_info < (3, 51, 3):
        raise RuntimeError(
            f"SQLite {dbapi2.sqlite_version} can lose commits in WAL mode; install pysqlite3 0.6 or newer"
        )
    return dbapi2


def _configure_sqlite(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves, below
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE takes the write lock before the first read. A plain BEGIN that writes later fails if another transaction
    # wrote in between.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
