"""The database: transactions on both kinds, and the settings that keep SQLite safe."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError
from support.worker_tools import Work

from worker.database.clock import now
from worker.database.engine import Database, note_unneeded
from worker.database.tables import Job, JobState


def test_concurrent_read_modify_writes_lose_no_update(work: Work) -> None:
    """Four writers each read a value and write it back increased; no increment is lost."""
    job = work.accept()

    def raise_failures(_: int) -> None:
        with work.database.writing() as session:
            row = session.scalars(select(Job).where(Job.id == job.id).with_for_update()).one()
            row.failures += 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(raise_failures, range(200)))

    assert work.job(job).failures == 200


def test_an_exception_rolls_the_transaction_back(work: Work) -> None:
    """A failed transaction leaves no row."""
    job = work.accept()

    def fail() -> None:
        with work.database.writing() as session:
            session.get_one(Job, job.id).failures = 5
            session.flush()
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()

    assert work.job(job).failures == 0


def test_unneeded_files_are_removed_after_the_commit(work: Work) -> None:
    """One call passes them to the store, when the rows of the transaction are visible to others."""
    job, seen = work.accept(), []
    work.database.on_unneeded = lambda keys: seen.append((keys, work.job(job).failures))
    with work.database.writing() as session:
        note_unneeded(session, ["b"])
        note_unneeded(session, ["a", "b"])
        session.get_one(Job, job.id).failures = 5
    with work.database.writing() as session:
        session.get_one(Job, job.id).failures = 6

    assert seen == [(["a", "b"], 5)]


def test_a_rolled_back_transaction_removes_no_file(work: Work) -> None:
    """Its rows still name the files."""

    def fail() -> None:
        with work.database.writing() as session:
            note_unneeded(session, ["a"])
            raise RuntimeError("half way")

    with work.unneeded() as unneeded, pytest.raises(RuntimeError, match="half way"):
        fail()

    assert unneeded == []


def test_the_databases_clock_counts_seconds_since_1970(database: Database) -> None:
    """Both databases return fractions of a second, and time does not run backwards."""
    with database.reading() as session:
        first, second = (session.scalar(select(now())) for _ in range(2))

    assert isinstance(first, float)
    assert 1.7e9 < first <= (second or 0) < 1e10


def test_sqlite_runs_in_wal_mode_on_a_version_without_the_wal_race(tmp_path: object, database: Database) -> None:
    """SQLite is 3.51.3 or newer and uses WAL, full synchronisation and foreign keys; Postgres is 15 or newer."""
    if database.url.get_backend_name() != "sqlite":
        with database.reading() as session:
            major = int(str(session.scalar(text("SHOW server_version"))).split(".")[0])

        assert major >= 15
        return
    with database.reading() as session:
        pragmas = [session.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous", "foreign_keys")]
        version = str(session.scalar(select(func.sqlite_version())))

    assert pragmas == ["wal", 2, 1]
    assert tuple(map(int, version.split("."))) >= (3, 51, 3)


@pytest.mark.long
def test_a_process_that_stops_in_a_transaction_does_not_stop_the_others(work: Work) -> None:
    """On Postgres it loses its locks after some seconds; on SQLite other writers get an error that it is locked."""
    job = work.accept()
    with work.database.engine.execution_options(writes=True).connect() as stopped:
        stopped.execute(select(Job).where(Job.id == job.id).with_for_update())
        if work.database.url.get_backend_name() == "sqlite":
            with pytest.raises(OperationalError, match="locked"):
                work.cancel(job)
        else:
            assert work.cancel(job).state == JobState.CANCELLED
            stopped.invalidate()
