"""Requests that create something, remembered by their Idempotency-Key: the same one again creates nothing."""

from dataclasses import dataclass

from sqlalchemy import delete
from sqlmodel import Session, col

from worker.database.clock import now
from worker.database.engine import Database, one_at_a_time
from worker.database.tables import IdempotencyKey
from worker.errors import KeyReused
from worker.ledger.transitions import clock

KEPT_SECONDS = 24 * 3600.0  # how long a key is remembered; a client that has not heard by then has given up


@dataclass(frozen=True)
class Once:
    """A request that shall have its effect once."""

    key: str
    sha256: str  # of method, path and body


def remembered(session: Session, once: Once | None) -> IdempotencyKey | None:
    """What a request has created before; KeyReused where its key came with another request."""
    if once is None:
        return None
    one_at_a_time(session, once.key)
    row = session.get(IdempotencyKey, once.key)
    if row is not None and row.sha256 != once.sha256:
        raise KeyReused("this Idempotency-Key came with another request before; give each request a key of its own")
    return row


def remember(session: Session, once: Once | None, job_id: str, trial: int | None = None) -> None:
    """Note what a request has created, in the transaction that does so."""
    if once is not None:
        session.flush()  # the job that it refers to
        session.add(IdempotencyKey(key=once.key, sha256=once.sha256, job_id=job_id, trial=trial, at=clock(session)))
        session.flush()


def forget(database: Database) -> None:
    """Forget the keys that nobody will send again."""
    with database.writing() as session:
        session.execute(delete(IdempotencyKey).where(col(IdempotencyKey.at) < now() - KEPT_SECONDS))
