"""The migrations against the tables, on both databases."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect
from sqlmodel import SQLModel

from alembic import command
from worker import tables
from worker.db import Database
from worker.migrations import configuration, migrate


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables, once of each kind."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path / 'empty.db'}")
        yield database
        database.close()
        return
    url: str = request.getfixturevalue("postgres")
    name = f"empty_{uuid4().hex}"
    with psycopg.connect(url.format("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        database = Database(url.format(name))
        yield database
        database.close()
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_an_upgraded_empty_database_equals_the_tables(empty: Database) -> None:
    """Nothing that the tables say is missing from the migrations, and nothing else is in them."""
    migrate(empty)
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, SQLModel.metadata)

    assert tables.Job.metadata is SQLModel.metadata
    assert differences == []


def test_migrations_go_down_and_up_again(empty: Database) -> None:
    """A downgrade leaves no table behind that would stop the next upgrade."""
    migrate(empty)
    command.downgrade(configuration(empty), "base")
    left = set(inspect(empty.engine).get_table_names()) - {"alembic_version"}
    migrate(empty)

    assert left == set()
    assert "job" in inspect(empty.engine).get_table_names()


def test_migrating_twice_changes_nothing(empty: Database) -> None:
    """Every start of the services may migrate."""
    migrate(empty)
    before = inspect(empty.engine).get_table_names()
    migrate(empty)

    assert inspect(empty.engine).get_table_names() == before
