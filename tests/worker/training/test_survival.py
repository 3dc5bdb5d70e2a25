"""A lost trainer, worker or file, or a full store, costs only time."""

import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlmodel import col
from support.gate import gate
from support.supervising import DEADLINE, in_background, until
from support.worker_tools import Work

from ml.records import TrialState
from worker.database.tables import Artifact, Event, Job, JobState, Measurement, ModelVersion, Trial
from worker.ledger.leases import Leases
from worker.settings import settings
from worker.supervision.supervisor import Supervisor
from worker.supervision.trainer_pool import Trainers

SPEC: dict[str, Any] = {
    "model": "shallow",
    "search_space": {
        "hidden_size": {"type": "int", "low": 16, "high": 64},
        "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
        "batch_size": 16,
    },
    "budget": {"trials": 3, "epochs": 8},
    "pruner": {"name": "none"},
}


@pytest.fixture
def environment(environment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the environment, with settings that checkpoint a pack as often as its cost allows."""
    monkeypatch.setenv("CHIFFRE_CHECKPOINT_SECONDS", "0")
    settings.cache_clear()
    return environment


def another(work: Work, trainers: Trainers) -> Supervisor:
    """Return a worker that follows another."""
    return Supervisor(Leases(work.database, "another", 6), trainers, poll_seconds=0.2)


def results(work: Work, job: Job) -> list[tuple[Any, ...]]:
    """Return all results of a job except times: trials, every rung, and the winner's file."""
    with work.database.reading() as session:
        trials = session.scalars(select(Trial).where(col(Trial.job_id) == job.id).order_by(col(Trial.number))).all()
        found: list[tuple[Any, ...]] = [(t.number, t.state, t.params, t.value, t.val_loss) for t in trials]
        for trial in trials:
            rungs = session.scalars(
                select(Measurement).where(col(Measurement.trial_id) == trial.id).order_by(col(Measurement.step))
            )
            found += [(trial.number, m.step, m.train_loss, m.val_loss, m.val_accuracy) for m in rungs]
        of_winner = (col(ModelVersion.job_id) == job.id, col(ModelVersion.test_accuracy).is_not(None))
        version = session.scalars(select(ModelVersion).where(*of_winner)).one()
        return [*found, (version.trial, session.get_one(Artifact, version.checkpoint_id).sha256)]


def rungs(work: Work, job: Job) -> int:
    """Return the number of a job's measurements."""
    with work.database.reading() as session:
        return session.scalar(select(func.count()).select_from(Measurement).where(Measurement.job_id == job.id)) or 0


def kept(work: Work, job: Job) -> list[Artifact]:
    """Return the checkpoints of a job's packs, the newest first."""
    with work.database.reading() as session:
        of_job = (col(Artifact.job_id) == job.id, col(Artifact.kind) == "pack")
        return list(session.scalars(select(Artifact).where(*of_job).order_by(col(Artifact.id).desc())))


_undisturbed: dict[str, list[tuple[Any, ...]]] = {}  # by specification; the results are the same on both databases


def undisturbed(work: Work, supervisor: Supervisor, **fields: Any) -> list[tuple[Any, ...]]:
    """Return the results of the job without a disturbance; it is trained once for all tests."""
    known = json.dumps(SPEC | fields, sort_keys=True)
    if known not in _undisturbed:
        job = work.accept(**SPEC | fields)
        supervisor.work()
        _undisturbed[known] = results(work, job)
    return _undisturbed[known]


def drain(work: Work, supervisor: Supervisor, job: Job, home: Path) -> None:
    """Let a worker begin the job, and drain the worker after its first checkpoint."""
    with gate(home, 4):
        working = in_background(supervisor)
        until(lambda: kept(work, job) and rungs(work, job) >= 4)
        supervisor.drain()
        working.join(DEADLINE)
    assert not working.is_alive()


@pytest.mark.long
@pytest.mark.parametrize("lanes", [1, 3])
def test_a_drained_pack_ends_bit_equal_on_another_worker(
    work: Work, supervisor: Supervisor, trainers: Trainers, home: Path, lanes: int
) -> None:
    """The draining worker checkpoints the pack at its last step, and the next worker goes on from there."""
    expected = undisturbed(work, supervisor, lanes=lanes)
    job = work.accept(**SPEC, lanes=lanes)
    drain(work, supervisor, job, home)
    position = max(pack.position for pack in work.packs() if pack.job_id == job.id)
    another(work, trainers).work()

    assert position > 0
    assert results(work, job) == expected
    assert kept(work, job) == []


@pytest.mark.long
def test_a_paused_job_ends_bit_equal(work: Work, supervisor: Supervisor, home: Path) -> None:
    """Its trainer is free within seconds and stays warm; after the pause, the job ends as if never paused."""
    expected = undisturbed(work, supervisor, lanes=3)
    job = work.accept(**SPEC, lanes=3)
    with gate(home, 4):
        working = in_background(supervisor)
        until(lambda: rungs(work, job) >= 4)
        work.controls.pause(job.id)
        working.join(DEADLINE)
    recorded = rungs(work, job)
    (pid,) = (trainer.pid for trainer in supervisor.trainers._all)
    work.controls.resume(job.id)
    supervisor.work()

    assert not working.is_alive()
    assert recorded < 24
    assert results(work, job) == expected
    assert [trainer.pid for trainer in supervisor.trainers._all] == [pid]


@pytest.mark.long
def test_a_trial_whose_trainer_was_killed_ends_bit_equal(
    work: Work, supervisor: Supervisor, trainers: Trainers, home: Path
) -> None:
    """After a kill -9 in its middle, the trial goes on from its last checkpoint, and no result is recorded twice."""
    one = {**SPEC, "budget": {"trials": 1, "epochs": 8}, "lanes": 1}
    expected = undisturbed(work, supervisor, **one)
    job = work.accept(**one)
    with gate(home, 4):
        working = in_background(supervisor)
        until(lambda: kept(work, job) and rungs(work, job) >= 4)
        os.kill(trainers._all[0].pid, signal.SIGKILL)
    working.join(DEADLINE)
    another(work, trainers).work()

    assert results(work, job) == expected


def truncated(file: Path) -> None:
    """Cut the file to half its size."""
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file: Path) -> None:
    """Flip one bit of the file."""
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def emptied(file: Path) -> None:
    """Empty the file."""
    file.write_bytes(b"")


@pytest.mark.long
@pytest.mark.parametrize(
    ("damage", "all_of_them"),
    [
        (truncated, False),
        (flipped, False),
        (emptied, False),
        (Path.unlink, False),
        (flipped, True),
        (Path.unlink, True),
    ],
    ids=lambda value: {False: "the last", True: "all"}[value] if isinstance(value, bool) else value.__name__,
)
def test_a_damaged_checkpoint_costs_only_time(
    work: Work,
    supervisor: Supervisor,
    trainers: Trainers,
    home: Path,
    environment: Path,
    damage: Callable[[Path], None],
    all_of_them: bool,
) -> None:
    """The pack goes on from the previous checkpoint, or from its start; the history says why."""
    expected = undisturbed(work, supervisor, lanes=3)
    job = work.accept(**SPEC, lanes=3)
    drain(work, supervisor, job, home)
    for artifact in kept(work, job)[: None if all_of_them else 1]:
        damage(environment / artifact.path)
    another(work, trainers).work()
    with work.database.reading() as session:
        told = session.scalars(select(col(Event.detail)).where(col(Event.job_id) == job.id)).all()

    assert results(work, job) == expected
    assert any("cannot go on from its newest checkpoint" in (detail or "") for detail in told)


@pytest.mark.long
def test_a_winner_whose_checkpoint_is_damaged_is_trained_again(
    work: Work, supervisor: Supervisor, environment: Path
) -> None:
    """Unverified weights are never published: the trial is trained again, and its new weights are published."""
    job = work.accept(**SPEC | {"budget": {"trials": 2, "epochs": 2}}, lanes=1)
    claims = Leases(work.database, "first", 60)
    publishing, supervisor.leases.claim = supervisor.leases.claim, lambda: _but_publish(claims, work, job)
    supervisor.work()
    supervisor.leases.claim = publishing
    best = work.job(job).best_trial
    with work.database.reading() as session:
        winner = session.scalars(
            select(Artifact).where(Artifact.job_id == job.id, Artifact.trial == best, Artifact.kind == "checkpoint")
        ).one()
    flipped(environment / winner.path)
    supervisor.work()
    with work.database.reading() as session:
        of_winner = select(ModelVersion).where(col(ModelVersion.test_accuracy).is_not(None))
        version = session.scalars(of_winner).one()
        published = session.get_one(Artifact, version.checkpoint_id)
    history = [event.detail for event in _events(work, job)]

    assert work.job(job).state == JobState.COMPLETED
    assert published.path != winner.path
    assert any("damaged" in (detail or "") for detail in history)
    assert {trial.state for trial in work.trials()} == {TrialState.COMPLETED}


@pytest.mark.long
def test_a_job_without_room_for_its_weights_waits_for_room(
    work: Work, supervisor: Supervisor, trainers: Trainers, environment: Path
) -> None:
    """It is paused with a reason, leaves no partial file, and completes after it is resumed."""
    large = {"hidden_size": 4000, "learning_rate": 0.001, "batch_size": 256}  # 12 MiB
    job = work.accept(**SPEC | {"search_space": large, "budget": {"trials": 1, "epochs": 2}}, lanes=1)
    (trainer,) = trainers._all
    trainer.wait_until_ready()
    limit = resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, (6 * 2**20, resource.RLIM_INFINITY))
    supervisor.work()
    held = work.job(job)
    (why,) = (event for event in _events(work, job) if event.state == JobState.PAUSED)
    left = [path for path in environment.rglob("*") if path.is_file()]
    resource.prlimit(trainer.pid, resource.RLIMIT_FSIZE, limit)
    work.controls.resume(job.id)
    supervisor.work()

    assert held.state == JobState.PAUSED
    assert "there is no room for" in (why.detail or "")
    assert left == []
    assert work.job(job).state == JobState.COMPLETED


def _events(work: Work, job: Job) -> list[Event]:
    with work.database.reading() as session:
        return list(session.scalars(select(Event).where(col(Event.job_id) == job.id).order_by(col(Event.sequence))))


def _but_publish(claims: Leases, work: Work, job: Job) -> Any:
    """Claim the next pack, unless the job is publishing."""
    if work.job(job).state == JobState.STOPPING:
        return None
    return claims.claim()
