"""Idempotency keys: a request that creates something and is sent again creates nothing more."""

from dataclasses import dataclass

from sqlalchemy import delete
from sqlmodel import Session, col

from worker.database.clock import clock, now
from worker.database.engine import Database, one_at_a_time
from worker.database.tables import IdempotencyKey
from worker.errors import KeyReused

KEPT_SECONDS = 24 * 3600.0  # how long a key is remembered; a client that has no answer by then has given up


@dataclass(frozen=True)
class Once:
    """A request that must take effect only once."""

    key: str
    sha256: str  # of method, path and body


def remembered(session: Session, once: Once | None) -> IdempotencyKey | None:
    """Return what a request has created before; None if nothing, or if it has no key.

    Raises:
        KeyReused: if its key came with another request.
    """
    if once is None:
        return None
    one_at_a_time(session, once.key)
    row = session.get(IdempotencyKey, once.key)
    if row is not None and row.sha256 != once.sha256:
        raise KeyReused("this Idempotency-Key came with another request before; use a new key for each request")
    return row


def remember(session: Session, once: Once | None, job_id: str, trial: int | None = None) -> None:
    """Note what a request has created, in the transaction that creates it."""
    if once is not None:
        session.flush()  # the job that it refers to
        session.add(IdempotencyKey(key=once.key, sha256=once.sha256, job_id=job_id, trial=trial, at=clock(session)))
        session.flush()


def forget(database: Database) -> None:
    """Delete the keys that are older than KEPT_SECONDS."""
    with database.writing() as session:
        session.execute(delete(IdempotencyKey).where(col(IdempotencyKey.at) < now() - KEPT_SECONDS))
