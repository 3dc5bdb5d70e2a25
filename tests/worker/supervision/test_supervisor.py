"""The supervisor with real training processes, some of which the tests kill."""

import os
import signal
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any

import psutil
import pytest
from sqlalchemy import select, update
from sqlmodel import col
from support.gate import gate
from support.supervising import DEADLINE, in_background, until
from support.worker_tools import Work

from ml.artifacts import load_checkpoint
from ml.records import Stop, TrialState
from worker.database.clock import clock
from worker.database.tables import Artifact, Job, JobState, Measurement, ModelVersion, Pack
from worker.ledger.leases import Claim
from worker.supervision.supervisor import WRITE_SECONDS, Supervisor
from worker.supervision.trainer_pool import TrainerProcess, Trainers

QUICK: dict[str, Any] = {
    "model": "shallow",
    "search_space": {"hidden_size": 32, "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True}},
}
SLOW = {**QUICK, "search_space": {**QUICK["search_space"], "batch_size": 2}}  # 647 steps per epoch
ENDLESS = {"trials": 1, "epochs": 1000}


def measured(work: Work) -> int:
    """Return the number of recorded epochs."""
    with work.database.reading() as session:
        return len(session.scalars(select(Measurement)).all())


def kill_while_it_trains(work: Work, supervisor: Supervisor, home: Path) -> None:
    """Run the supervisor to the end, and kill its working trainer after two epochs."""
    borrowed = []
    borrow = supervisor.trainers.borrow

    def noting() -> TrainerProcess | None:
        borrowed.append(borrow())
        return borrowed[-1]

    supervisor.trainers.borrow = noting  # type: ignore[method-assign]
    with gate(home, 2):
        working = in_background(supervisor)
        until(lambda: measured(work) >= 2)
        at_work = borrowed[-1]
        assert at_work is not None
        os.kill(at_work.pid, signal.SIGKILL)
    working.join()


def serve_with_two(supervisor: Supervisor) -> None:
    """Run two threads of the supervisor to the end."""
    workers = [in_background(supervisor) for _ in range(2)]
    for worker in workers:
        worker.join()
    supervisor.work()


def spend(work: Work, job: Job) -> None:
    """Record that a job has used up its time limit."""
    with work.database.writing() as session:
        session.execute(update(Job).where(col(Job.id) == job.id).values(seconds_limit=5.0, active_seconds=5.0))


def take_over(work: Work) -> list[Claim]:
    """Let the lease run out and claim the pack, unless its owner renews it or writes at the same moment."""
    with work.database.writing() as session:
        session.execute(update(Pack).values(lease_expires_at=1.0))
    claim = work.other.claim()
    return [] if claim is None else [claim]


def processes(trainers: Trainers) -> list[psutil.Process]:
    """Return the training processes."""
    return [psutil.Process(trainer.pid) for trainer in trainers._all]


def deafened(work: Work, supervisor: Supervisor) -> psutil.Process:
    """Suspend the only training process, so that it no longer reads orders, and return it."""
    (deaf,) = processes(supervisor.trainers)
    with work.database.writing() as session:
        clock(session)  # this takes SQLite's write lock, so that the suspended trainer does not hold it
        deaf.suspend()
    return deaf


def stops(monkeypatch: pytest.MonkeyPatch) -> list[Stop]:
    """Return a list to which the reason of every stop order from now on is added."""
    reasons: list[Stop] = []
    stop = TrainerProcess.stop

    def noting(trainer: TrainerProcess, reason: Stop) -> None:
        reasons.append(reason)
        stop(trainer, reason)

    monkeypatch.setattr(TrainerProcess, "stop", noting)
    return reasons


def test_a_supervisor_takes_a_job_to_its_published_version(work: Work, supervisor: Supervisor) -> None:
    """One call runs a job from its first trial to its verified checkpoint."""
    job = work.accept(**QUICK, budget={"trials": 3, "epochs": 2})
    supervisor.work()
    with work.database.reading() as session:
        version = session.scalars(select(ModelVersion)).one()
        checkpoint = session.get_one(Artifact, version.checkpoint_id)
    loaded = load_checkpoint(Path(os.environ["CHIFFRE_HOME"]) / "artifacts" / checkpoint.path, checkpoint.sha256)
    ended = work.job(job)

    assert (ended.state, ended.reserved, ended.error) == (JobState.COMPLETED, 3, None)
    assert version.trial == ended.best_trial == loaded.card["trial"]
    assert max(t.value or 0 for t in work.trials()) == version.val_accuracy == loaded.card["val_accuracy"]
    assert 0.5 < version.test_accuracy <= 1


@pytest.mark.long
@pytest.mark.parametrize("lanes", [1, 3])
def test_one_trainer_repeats_a_seeded_job_bit_for_bit(work: Work, supervisor: Supervisor, lanes: int) -> None:
    """The same specification with the same number of lanes gives the same trials and weights."""
    budget = {"trials": 4, "epochs": 2}
    for _ in range(2):
        work.accept(**QUICK, budget=budget, sampler={"name": "tpe", "n_startup_trials": 2}, lanes=lanes)
        supervisor.work()
    with work.database.reading() as session:
        hashes = session.scalars(select(Artifact.sha256).where(col(Artifact.kind) == "checkpoint")).all()
    rows = [(t.number, t.state, t.params, t.value, t.val_loss) for t in work.trials()]

    assert rows[0::2] == rows[1::2]
    assert len(hashes) == 2
    assert len(set(hashes)) == 1


@pytest.mark.long
def test_another_seed_gives_other_trials(work: Work, supervisor: Supervisor) -> None:
    """The seed decides the drawn parameters."""
    for seed in (0, 1):
        work.accept(**QUICK, budget={"trials": 1, "epochs": 1}, seed=seed)
        supervisor.work()
    first, second = work.trials()

    assert first.params != second.params


@pytest.mark.long
@pytest.mark.parametrize("trainers", [2], indirect=True)
def test_a_killed_trainer_is_replaced_and_its_trial_runs_again(
    work: Work, supervisor: Supervisor, trainers: Trainers, home: Path
) -> None:
    """Kill -9 during a trial costs only the time of that trial."""
    job = work.accept(**QUICK, budget={"trials": 2, "epochs": 8}, pruner={"name": "none"}, lanes=1)
    before = {process.pid for process in processes(trainers)}
    kill_while_it_trains(work, supervisor, home)
    numbers = [(t.number, t.state, t.epochs_run) for t in work.trials()]

    assert work.job(job).state == JobState.COMPLETED
    assert numbers == [(0, TrialState.COMPLETED, 8), (1, TrialState.COMPLETED, 8)]
    assert [pack.deaths for pack in work.packs()] == [1, 0, 0]
    assert len(before & {process.pid for process in processes(trainers)}) == 1


@pytest.mark.long
def test_the_death_of_an_idle_trainer_is_not_counted(work: Work, supervisor: Supervisor) -> None:
    """The pack goes to the next trainer."""
    work.accept(**QUICK, budget={"trials": 1, "epochs": 1})
    (trainer,) = supervisor.trainers._all
    trainer.wait_until_ready()
    borrow = supervisor.trainers.borrow

    def dying() -> TrainerProcess | None:
        borrowed = borrow()
        if borrowed is trainer:
            os.kill(trainer.pid, signal.SIGKILL)
            trainer._process.wait()
        return borrowed

    supervisor.trainers.borrow = dying  # type: ignore[method-assign]
    supervisor.work()

    assert [pack.deaths for pack in work.packs()] == [0, 0]
    assert [trial.state for trial in work.trials()] == [TrialState.COMPLETED]


@pytest.mark.long
@pytest.mark.parametrize("trainers", [2], indirect=True)
def test_the_pack_of_a_killed_trainer_is_halved(
    work: Work, supervisor: Supervisor, trainers: Trainers, home: Path
) -> None:
    """Kill -9 during three trials is held against none of them: each runs again to its end."""
    job = work.accept(**QUICK, budget={"trials": 3, "epochs": 8}, pruner={"name": "none"}, lanes=3)
    kill_while_it_trains(work, supervisor, home)
    numbers = [(t.number, t.state, t.epochs_run) for t in work.trials()]

    assert work.job(job).state == JobState.COMPLETED
    assert numbers == [(n, TrialState.COMPLETED, 8) for n in range(3)]
    assert [(pack.purpose, pack.lanes, pack.deaths) for pack in work.packs()][:2] == [("train", 1, 0), ("train", 2, 0)]


def test_a_cancelled_job_frees_its_trainer_within_ten_seconds(work: Work, supervisor: Supervisor) -> None:
    """The trial stops at its next step and the trainer keeps running."""
    job = work.accept(**SLOW, budget=ENDLESS)
    working = in_background(supervisor)
    until(lambda: measured(work) >= 1)
    before = {process.pid for process in processes(supervisor.trainers)}
    asked = monotonic()
    work.cancel(job)
    working.join(DEADLINE)
    took = monotonic() - asked

    assert not working.is_alive()
    assert took < 10
    assert work.job(job).state == JobState.CANCELLED
    assert [t.state for t in work.trials()] == [TrialState.CANCELLED]
    assert {process.pid for process in processes(supervisor.trainers)} == before


@pytest.mark.long
def test_a_trainer_that_does_not_stop_is_killed(
    work: Work, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the trainer of a cancelled pack does not react, it is killed and the job still ends."""
    monkeypatch.setattr("worker.supervision.supervisor.STOP_SECONDS", 0.5)
    job = work.accept(**SLOW, budget=ENDLESS)
    working = in_background(supervisor)
    until(lambda: measured(work) >= 1)
    deaf = deafened(work, supervisor)
    work.cancel(job)
    working.join(DEADLINE)

    assert not deaf.is_running()
    assert work.job(job).state == JobState.CANCELLED
    assert [t.state for t in work.trials()] == [TrialState.CANCELLED]


@pytest.mark.long
@pytest.mark.parametrize("lanes", [1, 3])
def test_a_job_whose_seconds_are_spent_publishes_its_best_result(
    work: Work, supervisor: Supervisor, lanes: int
) -> None:
    """Running trials are stopped, and the best epochs of measured trials count."""
    job = work.accept(**SLOW, budget={"seconds": 3.0, "epochs": 1000}, pruner={"name": "none"}, lanes=lanes)
    supervisor.work()
    ended = work.job(job)

    assert (ended.state, ended.stop_reason) == (JobState.COMPLETED, "seconds")
    assert len(work.trials()) == lanes
    assert {t.state for t in work.trials()} <= {TrialState.STOPPED_EARLY, TrialState.CANCELLED}
    assert work.trials()[0].state == TrialState.STOPPED_EARLY


@pytest.mark.long
def test_a_trainer_has_time_to_write_its_results_after_the_seconds_are_spent(
    work: Work, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets more time than the trainer of a draining worker or a cancelled job: a kill would lose its trials."""
    monkeypatch.setattr("worker.supervision.supervisor.STOP_SECONDS", -1.0)
    job = work.accept(**SLOW, budget=ENDLESS)
    working = in_background(supervisor)
    until(lambda: measured(work) >= 1)
    spend(work, job)
    working.join(DEADLINE)

    assert work.job(job).state == JobState.COMPLETED
    assert [t.state for t in work.trials()] == [TrialState.STOPPED_EARLY]


@pytest.mark.long
def test_a_trainer_that_writes_its_results_has_less_time_after_a_cancellation(
    work: Work, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cancelled job does not wait for results that are no longer needed."""
    monkeypatch.setattr("worker.supervision.supervisor.STOP_SECONDS", 0.5)
    reasons = stops(monkeypatch)
    job = work.accept(**SLOW, budget=ENDLESS)
    working = in_background(supervisor)
    until(lambda: measured(work) >= 1)
    deaf = deafened(work, supervisor)
    spend(work, job)
    until(lambda: reasons)
    asked = monotonic()
    work.cancel(job)
    working.join(DEADLINE)
    took = monotonic() - asked

    assert reasons == [Stop.SECONDS]
    assert took < WRITE_SECONDS / 2
    assert not deaf.is_running()
    assert work.job(job).state == JobState.CANCELLED


@pytest.mark.long
def test_a_worker_that_drains_after_the_seconds_are_spent_leaves_the_trial_to_the_next(
    work: Work, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits only seconds; the next owner of the pack records the measured trials, even as its first action."""
    monkeypatch.setattr("worker.supervision.supervisor.STOP_SECONDS", 0.5)
    monkeypatch.setenv("CHIFFRE_CHECKPOINT_SECONDS", "0")
    supervisor.trainers._all[0].kill()  # its replacement reads the new setting
    reasons = stops(monkeypatch)
    job = work.accept(**SLOW, budget=ENDLESS)
    working = in_background(supervisor)
    until(lambda: any(pack.position > 647 for pack in work.packs()))  # the pack has a checkpoint of a later epoch
    deaf = deafened(work, supervisor)
    spend(work, job)
    until(lambda: reasons)
    supervisor.drain()
    working.join(DEADLINE)

    assert reasons == [Stop.SECONDS]
    assert not deaf.is_running()
    assert [t.state for t in work.trials()] == [TrialState.RUNNING]

    monkeypatch.setattr("worker.supervision.supervisor.CHECK_SECONDS", 0.0)
    Supervisor(work.other, supervisor.trainers, 0.2).work()

    assert work.job(job).state == JobState.COMPLETED
    assert [t.state for t in work.trials()] == [TrialState.STOPPED_EARLY]


@pytest.mark.long
def test_a_trainer_whose_lease_was_lost_is_killed(work: Work, supervisor: Supervisor, trainers: Trainers) -> None:
    """A worker that lost its lease kills its trainer and writes no more results."""
    work.accept(**SLOW, budget=ENDLESS)
    working = in_background(supervisor)
    until(lambda: measured(work) >= 1)
    taken: list[Claim] = []
    until(lambda: taken or taken.extend(take_over(work)))
    working.join(DEADLINE)
    (trial,) = work.trials()

    assert not working.is_alive()
    assert trial.state == TrialState.RUNNING
    assert work.other.renew(taken[0])


def test_a_draining_worker_gives_its_trial_to_the_next(work: Work, supervisor: Supervisor) -> None:
    """It ends within seconds, no death is counted, and another worker can claim the pack at once."""
    work.accept(**SLOW, budget=ENDLESS)
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


@pytest.mark.long
def test_a_worker_that_was_not_woken_finds_work_by_itself(work: Work, supervisor: Supervisor) -> None:
    """A lost message delays work but loses none."""
    job = work.accept(**QUICK, budget={"trials": 1, "epochs": 1})
    polling = Thread(target=supervisor.poll)
    polling.start()
    until(lambda: work.job(job).state == JobState.COMPLETED)
    supervisor.drain()
    polling.join()
    supervisor.close()

    assert work.job(job).best_trial == 0


@pytest.mark.long
@pytest.mark.parametrize("trainers", [2], indirect=True)
def test_two_trainers_serve_one_job_with_an_exact_budget(work: Work, supervisor: Supervisor) -> None:
    """Together they run exactly the trials of the budget, each once, and publish one version."""
    pruner = {"name": "median", "n_startup_trials": 2}
    job = work.accept(**QUICK, budget={"trials": 8, "epochs": 2}, pruner=pruner, lanes=1)
    serve_with_two(supervisor)
    with work.database.reading() as session:
        versions = session.scalars(select(ModelVersion)).all()

    assert [t.number for t in work.trials()] == list(range(8))
    assert work.job(job).state == JobState.COMPLETED
    assert len(versions) == 1


@pytest.mark.long
@pytest.mark.parametrize("trainers", [2], indirect=True)
def test_two_trainers_serve_one_job_in_packs(work: Work, supervisor: Supervisor) -> None:
    """The budget is exact even if three trials train together, and each trial has a result."""
    job = work.accept(**QUICK, budget={"trials": 9, "epochs": 2}, pruner={"name": "none"}, lanes=3)
    serve_with_two(supervisor)
    trials, packs = work.trials(), [pack for pack in work.packs() if pack.purpose == "train"]
    sizes = [sum(trial.pack_id == pack.id for trial in trials) for pack in packs]

    assert (work.job(job).state, work.job(job).lanes) == (JobState.COMPLETED, 3)
    assert [trial.number for trial in trials] == list(range(9))
    assert {trial.state for trial in trials} == {TrialState.COMPLETED}
    assert max(sizes) >= 3
    assert all((pack.lanes, pack.done) == (3, True) and "Linear" in pack.key for pack in packs)


@pytest.mark.long
def test_a_diverged_trial_is_recorded_and_the_job_goes_on(work: Work, supervisor: Supervisor) -> None:
    """A learning rate that is too high ends only its own trial."""
    space = {"learning_rate": {"type": "grid", "values": [1e30, 0.01]}, "hidden_size": 32}
    job = work.accept(model="shallow", search_space=space, sampler={"name": "grid"}, budget={"epochs": 3})
    supervisor.work()
    states = {(t.params or {})["learning_rate"]: (t.state, t.value is None) for t in work.trials()}

    assert states == {1e30: (TrialState.DIVERGED, True), 0.01: (TrialState.COMPLETED, False)}
    assert work.job(job).state == JobState.COMPLETED


@pytest.mark.long
def test_a_job_whose_lanes_do_not_fit_in_memory_fails_at_once(work: Work, supervisor: Supervisor) -> None:
    """It fails before any training, for any draw of its first trial, and the error says what to do."""
    sizes = {"type": "categorical", "choices": [[10, 10], [6000, 6000]]}
    space = {"hidden_sizes": sizes, "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2}}
    job = work.accept(model="mlp", search_space=space, lanes=1024, budget={"trials": 2000, "epochs": 1})
    supervisor.work()
    found = work.job(job)

    assert found.state == JobState.FAILED
    assert "1024 lanes of mlp take up to" in str(found.error)
    assert "ask for fewer lanes" in str(found.error)
    assert [trial.state for trial in work.trials()] == [TrialState.FAILED]
    assert measured(work) == 0


def test_a_trainer_that_is_given_back_to_a_closed_pool_is_not_replaced(environment: Path) -> None:
    """The pool starts no new process and lends none."""
    trainers = Trainers(1)
    trainer = trainers.borrow()
    assert trainer is not None
    trainers.close()
    trainers.give_back(trainer)

    assert not trainer.alive
    assert trainers.borrow() is None
    assert trainers._all == [trainer]


@pytest.mark.parametrize(("device", "number"), [("cpu", 3), ("cuda", 1)])
def test_by_default_each_core_has_a_trainer_and_a_gpu_has_one(
    device: str, number: int, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device that the first trainer reports decides; the test replaces the report."""
    monkeypatch.setattr("worker.supervision.trainer_pool.cores", lambda: 3)
    monkeypatch.setattr(TrainerProcess, "wait_until_ready", lambda _: device)
    trainers = Trainers(None)
    trainers.close()

    assert len(trainers._all) == number


@pytest.mark.long
def test_a_trainer_reports_its_device(environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is a CPU if CHIFFRE_DEVICE says so."""
    monkeypatch.setenv("CHIFFRE_DEVICE", "cpu")
    trainers = Trainers(1)
    device = trainers._all[0].wait_until_ready()
    trainers.close()

    assert device == "cpu"


@pytest.mark.long
def test_a_trainer_ends_with_its_worker(environment: Path) -> None:
    """The death of a worker closes the pipe of its trainer."""
    trainers = Trainers(1)
    (process,) = processes(trainers)
    trainers._all[0].wait_until_ready()
    trainers._all[0]._pipe.close()
    process.wait(DEADLINE)
    trainers.close()

    assert not process.is_running()
