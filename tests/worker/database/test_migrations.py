"""The migrations, compared with the tables, on both databases."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.util import CommandError
from sqlalchemy import inspect, text
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel

from alembic import command
from worker.database import tables
from worker.database.engine import Database
from worker.database.migrations import configuration, migrate


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """Return a database of each kind without tables."""
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
    """The migrations produce exactly the schema that the tables declare."""
    migrate(empty)
    with empty.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, SQLModel.metadata)

    assert tables.Job.metadata is SQLModel.metadata
    assert differences == []


def test_migrations_go_down_and_up_again(empty: Database) -> None:
    """A downgrade leaves no table that would stop the next upgrade."""
    migrate(empty)
    command.downgrade(configuration(empty), "base")
    left = set(inspect(empty.engine).get_table_names()) - {"alembic_version"}
    migrate(empty)

    assert left == set()
    assert "job" in inspect(empty.engine).get_table_names()


def test_a_second_migration_changes_nothing(empty: Database) -> None:
    """The database has the same tables after it."""
    migrate(empty)
    before = inspect(empty.engine).get_table_names()
    migrate(empty)

    assert inspect(empty.engine).get_table_names() == before


PREVIOUS = "0002"  # the revision of the previous release
JOB = {"id": "one", "kind": "tune", "spec": "{}", "state": "running", "model": "cnn", "dataset": "digits"}
PACK = {"id": 1, "job_id": "one", "purpose": "train", "key": "", "lanes": 1, "position": 0, "done": False}
TRIAL = {"id": 1, "job_id": "one", "number": 0, "pack_id": 1, "lane": 0, "state": "running", "attrs": "{}"}
FIRST: dict[str, dict[str, Any]] = {  # a job with a measured trial, in the columns of revision 0001
    "dataset": {"sha256": "0", "name": "digits", "images": 1, "shape": "[]", "classes": "[]"},
    "job": JOB
    | {"dataset_sha256": "0", "maximize": True, "trial_limit": 2, "reserved": 1, "failures": 0}
    | {"active_seconds": 0.0, "run": 1, "sequence": 1, "created_at": 1.0},
    "pack": PACK | {"deaths": 0, "lease_epoch": 1},
    "trial": TRIAL | {"epochs_run": 3, "seconds": 1.0, "sequence": 1, "created_at": 1.0},
    "measurement": {"trial_id": 1, "step": 10, "images_seen": 100, "seconds": 1.0},
}


def rows(database: Database) -> dict[str, dict[str, Any]]:
    """Return the only row of each table that was filled."""
    with database.engine.connect() as connection:
        return {table: dict(connection.execute(text(f"SELECT * FROM {table}")).one()._mapping) for table in FIRST}


PUBLISHED: dict[str, dict[str, Any]] = {  # the trial as champion, not yet evaluated on the test images
    "artifact": {"id": 1, "job_id": "one", "trial": 0, "kind": "checkpoint", "path": "a", "sha256": "a", "size": 1}
    | {"created_at": 1.0},
    "modelversion": {"id": 1, "model": "cnn", "version": 1, "dataset": "digits", "dataset_sha256": "0"}
    | {"split": "random", "objective": "val_accuracy", "value": 0.9, "job_id": "one", "run": 1, "trial": 0}
    | {"params": "{}", "shape": "[]", "classes": "[]", "weights": 1, "val_loss": 0.1, "val_accuracy": 0.9}
    | {"checkpoint_id": 1, "onnx_id": 1, "code_version": "0", "created_at": 1.0},
    "champion": {"model": "cnn", "dataset": "digits", "version_id": 1, "moved_at": 1.0},
}


def fill(database: Database, rows: dict[str, dict[str, Any]] = FIRST) -> None:
    """Write rows, by default those of the first revision."""
    with database.engine.begin() as connection:
        for table, row in rows.items():
            marks = ", ".join(f":{name}" for name in row)
            connection.execute(text(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})"), row)


def test_a_database_in_use_is_upgraded_with_all_its_rows(empty: Database) -> None:
    """Jobs, trials and measurements of the first revision survive all upgrades and the downgrade."""
    command.upgrade(configuration(empty), "0001")
    fill(empty)
    before = rows(empty)
    migrate(empty)
    after = rows(empty)
    command.downgrade(configuration(empty), "0001")

    assert all(before[table].items() <= after[table].items() for table in FIRST)
    assert after["job"]["lanes"] is None
    assert after["job"]["rules"] == 1
    assert rows(empty) == before


def test_references_hold_after_a_migration(empty: Database) -> None:
    """A row that refers to a missing row is refused, even on connections that migrated."""
    migrate(empty)

    with pytest.raises(IntegrityError), empty.engine.begin() as connection:
        connection.execute(text("INSERT INTO measurement (trial_id, step, images_seen, seconds) VALUES (7, 1, 1, 1)"))


def test_the_previous_release_can_write_after_the_migration(empty: Database) -> None:
    """Rows with the columns of the previous revision are accepted: a new column has a default or may be null."""
    command.upgrade(configuration(empty), PREVIOUS)
    before = {table: {c["name"] for c in inspect(empty.engine).get_columns(table)} for table in FIRST}
    migrate(empty)
    fill(empty)
    columns = {table: {c["name"]: c for c in inspect(empty.engine).get_columns(table)} for table in FIRST}

    assert all(before[table] <= columns[table].keys() for table in FIRST)
    for table, found in columns.items():
        added = [column for name, column in found.items() if name not in before[table]]
        assert all(column["nullable"] or column["default"] is not None for column in added)
    assert rows(empty)["measurement"]["images_seen"] == 100


def test_no_downgrade_leaves_rows_with_broken_references(empty: Database) -> None:
    """Before revision 0005, every version has a test accuracy; a champion without one stops the downgrade."""
    migrate(empty)
    fill(empty, {**FIRST, **PUBLISHED})
    with pytest.raises((CommandError, IntegrityError)):
        command.downgrade(configuration(empty), "0004")
    with empty.engine.connect() as connection:
        kept = connection.scalar(text("SELECT count(*) FROM modelversion"))

    assert kept == 1


def test_a_checkpoint_may_have_more_than_two_gibibytes(empty: Database) -> None:
    """A checkpoint of a pack with many lanes of a wide network is that large."""
    migrate(empty)
    fill(empty, {**FIRST, "artifact": {**PUBLISHED["artifact"], "size": 3 << 30}})
    with empty.engine.connect() as connection:
        assert connection.scalar(text("SELECT size FROM artifact")) == 3 << 30
