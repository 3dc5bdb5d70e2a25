"""Compiled statements that all databases of a test process share.

SQLAlchemy compiles each statement once for each engine. Nearly every test has an engine of its own, for a database that
is new, and would spend a fifth of its time on compiling the statements of the test before.
"""

from typing import Any

import sqlalchemy
from sqlalchemy.engine.default import DefaultDialect

from worker.database import engine


def share_statements() -> None:
    """Let engines of the same kind that are created from now on share their compiled statements."""
    caches: dict[str, Any] = {}

    def create_engine(*arguments: Any, **options: Any) -> sqlalchemy.Engine:
        created = sqlalchemy.create_engine(*arguments, **options)
        created._compiled_cache = caches.setdefault(created.dialect.name, created._compiled_cache)
        return created

    engine.create_engine = create_engine  # type: ignore[attr-defined]
    # The key of a compiled statement includes its engine's dialect; all of a kind are configured alike.
    DefaultDialect.__eq__ = lambda one, other: type(one) is type(other)  # type: ignore[method-assign,assignment]
    DefaultDialect.__hash__ = lambda one: hash(type(one))  # type: ignore[method-assign,assignment]
