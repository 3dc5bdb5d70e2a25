"""Alembic's entry: migrates the database it is handed, or the one that the settings name."""

import sqlmodel
from alembic.util import CommandError
from sqlalchemy import Connection

from alembic import context
from worker.database import tables  # noqa: F401 - fills the metadata
from worker.database.engine import Database
from worker.settings import settings

MIGRATION_LOCK = 0x43484946  # any number that nothing else locks


def migrate(connection: Connection) -> None:
    """Run the migrations in one transaction, one process at a time."""
    metadata = sqlmodel.SQLModel.metadata
    # Alembic takes SQLite's DDL for none that can be undone: with Python's driver, but as we begin transactions it can.
    context.configure(connection, target_metadata=metadata, render_as_batch=True, transactional_ddl=True)
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})")
        context.run_migrations()
        _check_references(connection)


def _check_references(connection: Connection) -> None:
    """Refuse what would leave rows that refer to none, as Postgres does by itself."""
    if connection.dialect.name == "sqlite":
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise CommandError(f"rows of {broken[0]} would refer to rows of {broken[2]} that are gone")


def enforce_references(connection: Connection, switch: str) -> None:
    """Turn SQLite's foreign keys on or off, outside of any transaction.

    It alters a table by making it anew; dropping the old one would be refused for the rows that refer to it.
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
