"""The janitor of every process: it takes back lost packs, wakes workers and removes unneeded files."""

import os
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import update
from support.worker_tools import FILE, Work

from worker.artifacts.folder import FolderStore
from worker.database.tables import Pack
from worker.ledger.leases import Leases
from worker.supervision.janitor import Janitor, stray


@pytest.fixture
def woken(monkeypatch: pytest.MonkeyPatch) -> Event:
    """Return an event that is set when a worker is woken."""
    event = Event()
    monkeypatch.setattr("worker.supervision.janitor.wake_worker", event.set)
    return event


def janitor(work: Work, store: FolderStore | None = None) -> Janitor:
    """Return the janitor of a process that has claimed no pack."""
    return Janitor(work.database, Leases(work.database, "janitor", 60), store, poll_seconds=0.01)


def test_a_lost_pack_is_taken_back_and_a_worker_woken(work: Work, woken: Event) -> None:
    """Any process can do this, before any worker claims a pack."""
    work.accept()
    work.pack(1)
    quiet = janitor(work)
    quiet.check()
    silent = not woken.is_set()
    with work.database.writing() as session:
        session.execute(update(Pack).values(lease_expires_at=1.0))
    quiet.check()

    assert silent
    assert woken.is_set()
    assert [(pack.lease_owner, pack.lost_leases) for pack in work.packs()] == [(None, 1)]


def test_a_waiting_job_wakes_a_worker_again(work: Work, woken: Event) -> None:
    """The broker may have lost the first message."""
    work.accept()
    janitor(work).check()

    assert woken.is_set()


def test_a_paused_job_wakes_no_worker(work: Work, woken: Event) -> None:
    """No worker may claim its packs."""
    job = work.accept()
    work.leases.release(work.pack(1))
    work.controls.pause(job.id)
    janitor(work).check()

    assert not woken.is_set()


def test_the_thread_survives_an_unreachable_database(work: Work, woken: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries again in its next round."""
    work.accept()
    failures = iter([RuntimeError("away"), RuntimeError("away")])
    reap = Leases.reap

    def sometimes(leases: Leases) -> int:
        for failure in failures:
            raise failure
        return reap(leases)

    monkeypatch.setattr(Leases, "reap", sometimes)
    upkeep = janitor(work)
    upkeep.start()
    heard = woken.wait(30)
    upkeep.close()

    assert heard


def test_only_old_files_without_a_row_are_removed(work: Work, tmp_path: Path) -> None:
    """Young files may still get their row, and files of other jobs may belong to another database."""
    folder = tmp_path / "artifacts"
    store = FolderStore(folder)
    job = work.accept()
    claim = work.pack(1)
    for key in (f"{job.id}/named", f"{job.id}/stray", f"{job.id}/.half", "0123456789ab/other", "letter"):
        store.write(key, b"content")
        os.utime(folder / key, (1e9, 1e9))
    store.write(f"{job.id}/young", b"content")
    work.ledger.keep(claim, 1, (f"{job.id}/named", FILE))
    found = set(stray(work.database, store))
    janitor(work, store).tidy()
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}

    assert found == {f"{job.id}/stray", f"{job.id}/.half"}
    assert left == {f"{job.id}/named", f"{job.id}/young", "0123456789ab/other", "letter"}
