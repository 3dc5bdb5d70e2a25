"""The database's clock: every instant is in seconds since 1970 by it, so machines need not agree on the time."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Float, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlmodel import Session


class now(FunctionElement[float]):  # noqa: N801 - reads as the SQL function it is
    """The instant at which the statement runs."""

    type = Float()
    inherit_cache = True


@compiles(now, "sqlite")
def _sqlite(element: now, compiler: Any, **_: Any) -> str:
    return "unixepoch('now', 'subsec')"


@compiles(now, "postgresql")
def _postgresql(element: now, compiler: Any, **_: Any) -> str:
    return "extract(epoch from clock_timestamp())::float8"


def clock(session: Session) -> float:
    """Return the present instant by the database's clock."""
    return float(session.scalar(select(now())) or 0.0)


def to_datetime(instant: float | None) -> datetime | None:
    """Return an instant as a date with a time zone."""
    return None if instant is None else datetime.fromtimestamp(instant, UTC)
