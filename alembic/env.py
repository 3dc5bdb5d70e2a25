"""The entry point of Alembic: migrate the database that the caller hands over, or the one that the settings name."""

import sqlmodel
from alembic.util import CommandError
from sqlalchemy import Connection

from alembic import context
from worker.database import tables  # noqa: F401 - it registers the tables in the metadata
from worker.database.engine import Database
from worker.settings import settings

MIGRATION_LOCK = 0x43484946  # arbitrary, but not used by another lock


def migrate(connection: Connection) -> None:
    """Run the migrations in one transaction, one process at a time."""
    metadata = sqlmodel.SQLModel.metadata
    # Alembic assumes that SQLite cannot roll back DDL. With the way that the engine begins transactions, it can.
    context.configure(connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        context.run_migrations()
        _check_references(connection)


def _check_references(connection: Connection) -> None:
    """Check SQLite's foreign keys before the commit, as Postgres does by itself.

    Raises:
        CommandError: if the migration would leave rows that refer to missing rows.
    """
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise CommandError(
                f"the migration would leave rows of {broken[0]} that refer to missing rows of {broken[2]}"
            )


def enforce_references(connection: Connection, switch: str) -> None:
    """Switch SQLite's foreign keys on or off, outside any transaction.

    Alembic alters a SQLite table by creating a new one. SQLite would refuse to drop the old one, to which rows refer.

    Args:
        connection: A connection without an open transaction.
        switch: "ON" or "OFF".
    """
    if connection.dialect.name == "sqlite":
        connection.connection.cursor().execute(f"PRAGMA foreign_keys={switch}").close()


engine = context.config.attributes.get("engine") or Database(settings().database).engine
with engine.execution_options(writes=True).connect() as connection:
    enforce_references(connection, "OFF")
    try:
        migrate(connection)
        connection.commit()
    finally:
        connection.rollback()
        enforce_references(connection, "ON")
