"""Real training processes, driven and killed."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import psutil
import pytest
from sqlalchemy import select, update
from sqlmodel import col
from worker_tools import Work

from ml.artifacts import load_checkpoint
from ml.records import TrialState
from worker.journal import clock
from worker.leases import Claim, Leases
from worker.supervisor import Supervisor
from worker.tables import Artifact, JobState, Measurement, ModelVersion, Pack, Trial
from worker.trainers import Trainers

QUICK = {
    "model": "shallow",
    "search_space": {"hidden_size": 32, "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}},
}
ENDLESS = {"trials": 1, "epochs": 1000}
DEADLINE = 60.0  # seconds; a machine that is busy is slow


@pytest.fixture
def trainers(request: pytest.FixtureRequest, environment: Path) -> Iterator[Trainers]:
    """Training processes on the test's database, one if the test does not say how many."""
    trainers = Trainers(getattr(request, "param", 1))
    yield trainers
    trainers.close()


@pytest.fixture
def supervisor(work: Work, trainers: Trainers) -> Supervisor:
    """A worker whose leases last six seconds."""
    return Supervisor(Leases(work.database, "tested", 6), trainers, poll_seconds=0.2)


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that another process brings about."""
    deadline = monotonic() + DEADLINE
    while not condition():
        assert monotonic() < deadline, "it did not happen in time"
        sleep(0.02)


def in_background(supervisor: Supervisor) -> Thread:
    """Let the supervisor work."""
    thread = Thread(target=supervisor.work)
    thread.start()
    return thread


def trials(work: Work) -> list[Trial]:
    """All trials."""
    with work.database.reading() as session:
        return list(session.scalars(select(Trial).order_by(col(Trial.number))))


def measured(work: Work) -> int:
    """How many epochs have been written down."""
    with work.database.reading() as session:
        return len(session.scalars(select(Measurement)).all())


def take_over(work: Work) -> list[Claim]:
    """Let the lease run out and claim the pack, unless its owner renews it or writes at that very instant."""
    with work.database.writing() as session:
        session.execute(update(Pack).values(lease_expires_at=1.0))
    claim = work.other.claim()
    return [] if claim is None else [claim]


def processes(trainers: Trainers) -> list[psutil.Process]:
    """The training processes."""
    return [psutil.Process(trainer.pid) for trainer in trainers._all]


def test_a_job_is_worked_on_until_its_version_is_published(work: Work, supervisor: Supervisor) -> None:
    """One call of the supervisor takes a job from its first trial to its published, verified checkpoint."""
    job = work.accept(**QUICK, budget={"trials": 3, "epochs": 2})
    supervisor.work()
    with work.database.reading() as session:
        version = session.scalars(select(ModelVersion)).one()
        checkpoint = session.get_one(Artifact, version.checkpoint_id)
    loaded = load_checkpoint(Path(os.environ["CHIFFRE_HOME"]) / "artifacts" / checkpoint.path, checkpoint.sha256)
    ended = work.job(job)

    assert (ended.state, ended.reserved, ended.error) == (JobState.COMPLETED, 3, None)
    assert version.trial == ended.best_trial == loaded.card["trial"]
    assert max(t.value or 0 for t in trials(work)) == version.val_accuracy == loaded.card["val_accuracy"]
    assert 0.5 < version.test_accuracy <= 1


def test_one_trainer_repeats_a_seeded_job_bit_for_bit(work: Work, supervisor: Supervisor) -> None:
    """The same specification gives the same trials and the same weights."""
    budget = {"trials": 4, "epochs": 2}
    for _ in range(2):
        work.accept(**QUICK, budget=budget, sampler={"name": "tpe", "n_startup_trials": 2})
        supervisor.work()
    with work.database.reading() as session:
        hashes = session.scalars(select(Artifact.sha256).where(col(Artifact.kind) == "checkpoint")).all()
    rows = [(t.number, t.state, t.params, t.value, t.val_loss) for t in trials(work)]

    assert rows[0::2] == rows[1::2]
    assert len(hashes) == 2
    assert len(set(hashes)) == 1


def test_another_seed_gives_other_trials(work: Work, supervisor: Supervisor) -> None:
    """The seed decides what is drawn."""
    for seed in (0, 1):
        work.accept(**QUICK, budget={"trials": 1, "epochs": 1}, seed=seed)
        supervisor.work()
    first, second = trials(work)

    assert first.params != second.params


@pytest.mark.parametrize("trainers", [2], indirect=True)
def test_a_killed_trainer_is_replaced_and_its_trial_runs_again(
    work: Work, supervisor: Supervisor, trainers: Trainers
) -> None:
    """Kill -9 in the middle of a trial costs that trial's time and nothing else."""
    job = work.accept(**QUICK, budget={"trials": 2, "epochs": 20})
    before = {process.pid for process in processes(trainers)}
    working = in_background(supervisor)
    until(lambda: measured(work) >= 2)
    busy = max(processes(trainers), key=lambda p: sum(p.cpu_times()[:2]))
    os.kill(busy.pid, signal.SIGKILL)
    working.join()
    numbers = [(t.number, t.state, t.epochs_run) for t in trials(work)]

    assert work.job(job).state == JobState.COMPLETED
    assert numbers == [(0, TrialState.COMPLETED, 20), (1, TrialState.COMPLETED, 20)]
    assert len(before & {process.pid for process in processes(trainers)}) == 1


def test_a_cancelled_job_frees_its_trainer_within_ten_seconds(work: Work, supervisor: Supervisor) -> None:
    """The trial is cut at its next step and the trainer stays warm."""
    job = work.accept(**QUICK, budget=ENDLESS)
    working = in_background(supervisor)
    until(lambda: measured(work) >= 1)
    before = {process.pid for process in processes(supervisor.trainers)}
    asked = monotonic()
    work.ledger.cancel(job.id)
    working.join(DEADLINE)
    took = monotonic() - asked

    assert not working.is_alive()
    assert took < 10
    assert work.job(job).state == JobState.CANCELLED
    assert [t.state for t in trials(work)] == [TrialState.CANCELLED]
    assert {process.pid for process in processes(supervisor.trainers)} == before


def test_a_trainer_that_does_not_stop_is_killed(
    work: Work, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a cancelled pack's trainer hears nothing, it is killed and the job ends all the same."""
    monkeypatch.setattr("worker.supervisor.STOP_SECONDS", 0.5)
    job = work.accept(**QUICK, budget=ENDLESS)
    working = in_background(supervisor)
    until(lambda: measured(work) >= 1)
    (deaf,) = processes(supervisor.trainers)
    with work.database.writing() as session:
        clock(session)  # SQLite's write lock is ours now, so the trainer does not fall asleep with it
        deaf.suspend()
    work.ledger.cancel(job.id)
    working.join(DEADLINE)

    assert not deaf.is_running()
    assert work.job(job).state == JobState.CANCELLED
    assert [t.state for t in trials(work)] == [TrialState.CANCELLED]


def test_a_job_whose_seconds_are_spent_publishes_what_it_reached(work: Work, supervisor: Supervisor) -> None:
    """A running trial is cut, and its best epoch counts."""
    job = work.accept(**QUICK, budget={"seconds": 3.0, "epochs": 1000})
    supervisor.work()
    ended = work.job(job)

    assert (ended.state, ended.stop_reason) == (JobState.COMPLETED, "seconds")
    assert trials(work)[-1].state in (TrialState.STOPPED_EARLY, TrialState.CANCELLED)
    assert trials(work)[0].state == TrialState.STOPPED_EARLY


def test_a_trainer_whose_lease_was_taken_is_killed(work: Work, supervisor: Supervisor, trainers: Trainers) -> None:
    """The loser of a lease ends its own trainer and writes nothing more."""
    work.accept(**QUICK, budget=ENDLESS)
    working = in_background(supervisor)
    until(lambda: measured(work) >= 1)
    taken: list[Claim] = []
    until(lambda: taken or taken.extend(take_over(work)))
    working.join(DEADLINE)
    (trial,) = trials(work)

    assert not working.is_alive()
    assert trial.state == TrialState.RUNNING
    assert work.other.renew(taken[0])


def test_a_draining_worker_gives_its_trial_to_the_next(work: Work, supervisor: Supervisor) -> None:
    """A worker that is asked to end does so within seconds, charges nobody, and another may claim at once."""
    work.accept(**QUICK, budget=ENDLESS)
    working = in_background(supervisor)
    until(lambda: measured(work) >= 1)
    supervisor.drain()
    working.join(DEADLINE)
    taken = work.other.claim()
    with work.database.reading() as session:
        pack = session.scalars(select(Pack)).one()

    assert not working.is_alive()
    assert taken is not None
    assert pack.deaths == 0


def test_a_worker_that_was_not_rung_finds_work_by_itself(work: Work, supervisor: Supervisor) -> None:
    """A lost message costs latency, never work."""
    job = work.accept(**QUICK, budget={"trials": 1, "epochs": 1})
    polling = Thread(target=supervisor.poll)
    polling.start()
    until(lambda: work.job(job).state == JobState.COMPLETED)
    supervisor.drain()
    polling.join()

    assert work.job(job).best_trial == 0


@pytest.mark.parametrize("trainers", [2], indirect=True)
def test_two_trainers_serve_one_job_with_an_exact_budget(work: Work, supervisor: Supervisor) -> None:
    """Together they begin as many trials as the budget says, each once, and one version is published."""
    job = work.accept(**QUICK, budget={"trials": 8, "epochs": 2}, pruner={"name": "median", "n_startup_trials": 2})
    workers = [in_background(supervisor) for _ in range(2)]
    for worker in workers:
        worker.join()
    supervisor.work()
    with work.database.reading() as session:
        versions = session.scalars(select(ModelVersion)).all()

    assert [t.number for t in trials(work)] == list(range(8))
    assert work.job(job).state == JobState.COMPLETED
    assert len(versions) == 1


def test_a_diverged_trial_is_recorded_and_the_job_goes_on(work: Work, supervisor: Supervisor) -> None:
    """A learning rate that blows up costs its own trial."""
    space = {"learning_rate": {"type": "grid", "values": [1e30, 0.01]}, "hidden_size": 32}
    job = work.accept(model="shallow", search_space=space, sampler={"name": "grid"}, budget={"epochs": 3})
    supervisor.work()
    states = {(t.params or {})["learning_rate"]: (t.state, t.value is None) for t in trials(work)}

    assert states == {1e30: (TrialState.DIVERGED, True), 0.01: (TrialState.COMPLETED, False)}
    assert work.job(job).state == JobState.COMPLETED


def test_a_trainer_ends_when_its_worker_does(environment: Path) -> None:
    """Nothing is left behind by a worker that dies: the trainer's pipe closes with it."""
    trainers = Trainers(1)
    (process,) = processes(trainers)
    trainers._all[0].wait_until_ready()
    trainers._all[0]._pipe.close()
    process.wait(DEADLINE)
    trainers.close()

    assert not process.is_running()
