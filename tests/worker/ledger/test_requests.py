"""Requests that change jobs: pauses, budgets, enqueued trials, cancellations and races between them."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlmodel import col
from support.worker_tools import FILE, Work, measurement

from ml.errors import SpecError
from ml.records import Finished, Stop, TrialState
from ml.specs import TuneSpec
from worker.database.tables import Event, IdempotencyKey, Job, JobState, Measurement, StopReason, Trial
from worker.errors import Conflict, LeaseLost, NotFound
from worker.ledger.idempotency import Once, forget
from worker.publication.rows import PublicationRows, Published

PUBLISHED = Published(("winner.onnx", FILE), [1, 28, 28], [str(n) for n in range(10)], 7850, 0.2, 0.88)
SPACE = {"learning_rate": {"type": "float", "low": 1e-4, "high": 0.1, "log": True}, "batch_size": 32}


def complete(work: Work) -> None:
    """Work until no pack is left; every trial completes and winners are published."""
    while claim := work.leases.claim():
        if claim.purpose == "publish":
            publishing = PublicationRows(work.database)
            publishing.publish(claim, publishing.winner(claim), PUBLISHED)
            continue
        for record in work.reserved(claim):
            work.start(claim, record.number)
            best = measurement(1, 0.5 + record.number / 100)
            finished = Finished(record.number, TrialState.COMPLETED, "", best, best.val_accuracy, None)
            path = f"{claim.job_id}/{record.number}.{claim.pack_id}"
            work.ledger.record(claim, [finished], {record.number: (path, FILE)})
        work.leases.close(claim)


def history(work: Work, job: Job) -> list[str]:
    """Return the states that a job went through."""
    with work.database.reading() as session:
        of_job = (col(Event.job_id) == job.id, col(Event.trial).is_(None))
        return list(session.scalars(select(col(Event.state)).where(*of_job).order_by(col(Event.sequence))))


# --- pause and resume


def test_a_paused_job_is_not_worked_on_until_it_is_resumed(work: Work) -> None:
    """Its worker is told to give the pack back, no worker can claim it, and no measurement is lost."""
    job = work.accept()
    claim = work.pack(2)
    work.measure(claim, 0, measurement(1, 0.8))
    paused = work.controls.pause(job.id)
    orders = work.leases.orders(claim)
    work.leases.release(claim)
    nothing = work.other.claim()
    resumed = work.controls.resume(job.id)
    taken = work.other.claim()

    assert (paused.state, resumed.state) == (JobState.PAUSED, JobState.RUNNING)
    assert (orders.stop, nothing) == (Stop.RELEASED, None)
    assert taken is not None
    assert taken.pack_id == claim.pack_id
    assert work.ledger.pack(taken).record.trials[0].rungs == {10: measurement(1, 0.8)}


def test_results_before_a_trainer_learns_of_the_pause_count(work: Work) -> None:
    """The last trial may end meanwhile; the job then waits without work, and is published after it is resumed."""
    job = work.accept(budget={"trials": 1})
    claim = work.pack(1)
    work.controls.pause(job.id)
    work.run_trial(claim, 0.9)
    waiting = work.job(job).state
    resumed = work.controls.resume(job.id).state

    assert (waiting, resumed) == (JobState.PAUSED, JobState.STOPPING)


def test_a_waiting_job_can_be_paused(work: Work) -> None:
    """It is queued again afterwards, because none of its trials was begun."""
    job = work.accept()
    work.controls.pause(job.id)
    nothing = work.leases.claim()
    resumed = work.controls.resume(job.id)

    assert (nothing, resumed.state) == (None, JobState.QUEUED)
    assert work.leases.claim() is not None


def test_pausing_and_resuming_are_idempotent(work: Work) -> None:
    """The second request changes nothing and adds nothing to the history."""
    job = work.accept()
    work.pack(1)
    for ask in (work.controls.pause, work.controls.resume):
        first = ask(job.id).model_dump()

        assert ask(job.id).model_dump() == first
    assert history(work, job) == ["queued", "running", "paused", "running"]


def test_a_job_that_is_ending_cannot_be_paused(work: Work) -> None:
    """The error names the job's state."""
    job = work.accept(budget={"trials": 1})
    work.run_trial(work.pack(1), 0.9)
    with pytest.raises(Conflict, match="the job is publishing its winner and cannot be paused"):
        work.controls.pause(job.id)
    complete(work)

    with pytest.raises(Conflict, match="the job is completed"):
        work.controls.pause(job.id)
    with pytest.raises(Conflict, match="the job is completed and cannot be resumed; raise its budget"):
        work.controls.resume(job.id)


def test_a_paused_job_can_be_cancelled(work: Work) -> None:
    """A paused job ends like any other."""
    job = work.accept()
    work.pack(1)
    work.controls.pause(job.id)

    assert work.cancel(job).state == JobState.CANCELLED
    assert {trial.state for trial in work.trials()} == {TrialState.CANCELLED}


def test_a_job_whose_files_do_not_fit_into_the_store_is_paused(work: Work) -> None:
    """The history says why, and the job goes on after it is resumed."""
    job = work.accept()
    claim = work.pack(1)
    work.leases.hold(claim, "there is no room for it")
    held = work.job(job)
    with work.database.reading() as session:
        last = session.scalars(select(Event).order_by(col(Event.sequence).desc())).first()
    work.controls.resume(job.id)
    taken = work.other.claim()

    assert held.state == JobState.PAUSED
    assert last is not None
    assert (last.detail, last.by) == ("there is no room for it", "one")
    assert taken is not None
    assert taken.pack_id == claim.pack_id


def test_a_winner_that_did_not_fit_into_the_store_is_published_later(work: Work) -> None:
    """A job that was paused while it published goes back to publishing."""
    job = work.accept(budget={"trials": 1})
    work.run_trial(work.pack(1), 0.9)
    claim = work.leases.claim()
    assert claim is not None
    work.leases.hold(claim, "full")
    resumed = work.controls.resume(job.id)
    complete(work)

    assert resumed.state == JobState.STOPPING
    assert work.job(job).state == JobState.COMPLETED


def test_a_job_that_is_paused_while_it_publishes_accepts_no_more_work(work: Work) -> None:
    """A trial that begins now would be too late for the version."""
    job = work.accept(search_space=SPACE, budget={"trials": 2})
    work.run_trial(work.pack(1), None, TrialState.FAILED)
    work.run_trial(work.pack(1), 0.9)
    claim = work.leases.claim()
    assert claim is not None
    work.leases.hold(claim, "full")
    late: list[Callable[[], object]] = [
        lambda: work.controls.extend(job.id, {"trials": 3}),
        lambda: work.controls.enqueue(job.id, {}),
        lambda: work.controls.retry(job.id, 0),
    ]

    for ask in late:
        with pytest.raises(Conflict, match="paused"):
            ask()


# --- more budget


def test_a_running_jobs_budget_can_be_raised(work: Work) -> None:
    """It begins trials up to the new limit, which its specification shows."""
    job = work.accept(budget={"trials": 1})
    claim = work.pack(5)
    work.controls.extend(job.id, {"trials": 3})
    more = [work.ledger.reserve(claim, lambda number: True) for _ in range(3)]
    changed = work.job(job)

    assert [record.number if record else None for record in more] == [1, 2, None]
    assert (changed.trial_limit, changed.spec["budget"]["trials"], changed.run) == (3, 3, 1)


def test_raising_the_budget_restarts_a_completed_job(work: Work) -> None:
    """It keeps its trials and goes through its states again, to a better winner."""
    job = work.accept(budget={"trials": 2})
    complete(work)
    reopened = work.controls.extend(job.id, {"trials": 4})
    complete(work)
    ended = work.job(job)

    assert (reopened.state, reopened.run, reopened.stop_reason) == (JobState.QUEUED, 2, None)
    assert (ended.state, ended.stop_reason, ended.reserved) == (JobState.COMPLETED, StopReason.TRIALS, 4)
    assert history(work, job) == ["queued", "running", "stopping", "completed"] * 2


def test_a_run_without_a_better_trial_publishes_nothing(work: Work) -> None:
    """The winner is already a version, so the job completes without publishing."""
    job = work.accept(budget={"trials": 1})
    complete(work)
    work.controls.extend(job.id, {"trials": 2})
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, 0.1)

    assert work.job(job).state == JobState.COMPLETED
    assert history(work, job) == ["queued", "running", "stopping", "completed", "queued", "running", "completed"]


def test_lowering_a_raised_budget_completes_the_job_again(work: Work) -> None:
    """If no trial has begun in the meantime, no work is left."""
    job = work.accept(budget={"trials": 1})
    complete(work)
    work.controls.extend(job.id, {"trials": 2})

    assert work.controls.extend(job.id, {"trials": 1}).state == JobState.COMPLETED


def test_setting_the_same_budget_again_changes_nothing(work: Work) -> None:
    """This holds for a running job and for a completed one."""
    job = work.accept(budget={"trials": 2})
    for _ in range(2):
        before = work.job(job).sequence
        work.controls.extend(job.id, {"trials": 2})

        assert work.job(job).sequence == before
        complete(work)


def test_a_budget_cannot_be_lowered_below_the_begun_trials(work: Work) -> None:
    """The error says how many trials were begun."""
    job = work.accept(budget={"trials": 5})
    work.pack(3)

    with pytest.raises(Conflict, match="3 trials were begun already"):
        work.controls.extend(job.id, {"trials": 2})
    assert work.job(job).trial_limit == 5


def test_lowering_the_budget_to_the_done_trials_ends_the_job(work: Work) -> None:
    """Without open packs, the job stops at once."""
    job = work.accept(budget={"trials": 5})
    work.run_trial(work.pack(1), 0.9)
    lowered = work.controls.extend(job.id, {"trials": 1})

    assert lowered.state == JobState.STOPPING


def test_only_trials_and_seconds_of_a_budget_can_be_changed(work: Work) -> None:
    """Epochs are fixed for all trials, and one limit must remain."""
    tune = work.accept(budget={"trials": 5})
    with pytest.raises(SpecError, match="no limit on trials or seconds"):
        work.controls.extend(tune.id, {"trials": None})
    with pytest.raises(SpecError, match="epochs: cannot be changed; only trials and seconds can"):
        work.controls.extend(tune.id, {"epochs": 3})
    work.controls.extend(tune.id, {"trials": None, "seconds": 60.0})

    assert work.job(tune).seconds_limit == 60


def test_a_job_that_failed_or_was_cancelled_cannot_be_extended(work: Work) -> None:
    """Neither can a job that is publishing."""
    job = work.accept(budget={"trials": 1})
    work.run_trial(work.pack(1), 0.9)
    with pytest.raises(Conflict, match="publishing its winner, so its budget cannot be changed"):
        work.controls.extend(job.id, {"trials": 2})
    work.cancel(job)

    with pytest.raises(Conflict, match="the job is cancelled, so its budget cannot be changed"):
        work.controls.extend(job.id, {"trials": 2})


# --- enqueued trials


def test_an_enqueued_configuration_is_the_next_trial(work: Work) -> None:
    """It has a number at once, counts within the budget, and its worker gets the given values."""
    job = work.accept(search_space=SPACE, budget={"trials": 3})
    trial = work.controls.enqueue(job.id, {"learning_rate": 0.05})
    claim = work.leases.claim()
    assert claim is not None
    (record,) = work.reserved(claim)

    assert (trial.number, work.job(job).reserved) == (0, 1)
    assert (record.number, record.enqueued, record.suggestion) == (0, {"learning_rate": 0.05}, None)
    assert work.job(job).state == JobState.RUNNING


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"learning_rate": 5.0}, "out of range; give a value from 0.0001 to 0.1"),
        ({"learning_rate": "fast"}, "not a number; give one"),
        ({"batch_size": 64}, "fixed in this job; give 32 or leave it out"),
        ({"lr": 0.1}, "not searched by this job; choose from: learning_rate, batch_size"),
    ],
)
def test_a_configuration_that_the_search_could_not_draw_is_refused(
    work: Work, params: dict[str, Any], words: str
) -> None:
    """The error names the parameter, and no trial begins."""
    job = work.accept(search_space=SPACE)

    with pytest.raises(SpecError, match=words):
        work.controls.enqueue(job.id, params)
    assert work.job(job).reserved == 0


def test_nothing_is_enqueued_beyond_the_budget(work: Work) -> None:
    """A job that has ended and a grid accept no trials either."""
    job = work.accept(search_space=SPACE, budget={"trials": 1})
    work.controls.enqueue(job.id, {})
    with pytest.raises(Conflict, match=r"budget is spent \(trials\); raise it first"):
        work.controls.enqueue(job.id, {})
    work.cancel(job)
    with pytest.raises(Conflict, match="the job is cancelled"):
        work.controls.enqueue(job.id, {})
    grid = {"learning_rate": {"type": "grid", "values": [0.1, 0.01]}}
    job = work.accept(search_space=grid, sampler={"name": "grid"}, budget={"epochs": 1})

    with pytest.raises(SpecError, match="the grid sampler tries every point by itself"):
        work.controls.enqueue(job.id, {"learning_rate": 0.1})


def test_a_failed_trial_can_be_retried(work: Work) -> None:
    """It runs from its start and counts once in the budget; a job that has ended restarts for it."""
    job = work.accept(budget={"trials": 2})
    work.run_trial(work.pack(1), None, TrialState.FAILED)
    complete(work)
    with work.database.writing() as session:
        session.execute(update(Trial).values(lane=1))
    tried = work.controls.retry(job.id, 0)
    again = work.controls.retry(job.id, 0)
    claim = work.leases.claim()
    assert claim is not None
    (record,) = work.reserved(claim)
    with work.database.reading() as session:
        forgotten = session.scalars(select(Measurement).where(col(Measurement.trial_id) == tried.id)).all()

    assert (tried.state, tried.lane, again.sequence) == (TrialState.RUNNING, 0, tried.sequence)
    assert (record.number, record.suggestion, record.start_step) == (0, {"learning_rate": 0.01}, None)
    assert (work.job(job).reserved, work.job(job).failures, work.job(job).run, forgotten) == (2, 0, 2, [])


def test_no_trial_can_be_retried_after_the_seconds_are_spent(work: Work) -> None:
    """It would be cancelled at once, and a cancelled trial cannot be retried."""
    job = work.accept(budget={"trials": 2, "seconds": 100})
    work.run_trial(work.pack(1), None, TrialState.FAILED)
    complete(work)
    with work.database.writing() as session:
        session.get_one(Job, job.id).active_seconds = 100

    with pytest.raises(Conflict, match="seconds are spent"):
        work.controls.retry(job.id, 0)
    assert work.trials()[0].state == TrialState.FAILED


def test_only_a_failed_trial_can_be_retried(work: Work) -> None:
    """The error says how the trial ended."""
    job = work.accept(budget={"trials": 2})
    work.run_trial(work.pack(1), 0.9)

    with pytest.raises(Conflict, match="the trial is completed; only a failed trial"):
        work.controls.retry(job.id, 0)
    with pytest.raises(NotFound, match="no such trial"):
        work.controls.retry(job.id, 7)


# --- cancelling one trial


def test_a_worker_drops_a_cancelled_trial(work: Work) -> None:
    """The trial ends at once, its worker is told, and its later events are ignored."""
    job = work.accept(budget={"trials": 2})
    claim = work.pack(2)
    trial = work.controls.cancel_trial(job.id, 1)
    orders = work.leases.orders(claim)
    work.measure(claim, 1, measurement(1, 0.9))
    work.measure(claim, 0, measurement(1, 0.8))
    again = work.controls.cancel_trial(job.id, 1)
    rungs = {record.number: record.rungs for record in work.ledger.pack(claim).record.trials}

    assert (trial.state, again.sequence) == (TrialState.CANCELLED, trial.sequence)
    assert (orders.stop, set(orders.cancelled)) == (None, {1})
    assert rungs == {0: {10: measurement(1, 0.8)}, 1: {}}


def test_cancelling_the_last_trial_without_a_worker_moves_the_job_on(work: Work) -> None:
    """No worker needs to claim the trial's pack again."""
    job = work.accept(budget={"trials": 2})
    work.run_trial(work.pack(1), 0.9)
    claim = work.pack(1)
    work.leases.release(claim)
    work.controls.cancel_trial(job.id, 1)

    assert work.job(job).state == JobState.STOPPING
    assert [pack.done for pack in work.packs()] == [True, True, False]


def test_a_trial_that_has_ended_stays_as_it_is(work: Work) -> None:
    """A cancellation that comes too late returns how the trial ended."""
    job = work.accept(budget={"trials": 2})
    work.run_trial(work.pack(1), 0.9)

    assert work.controls.cancel_trial(job.id, 0).state == TrialState.COMPLETED


# --- races


@pytest.mark.long
def test_either_the_cancellation_or_the_completion_wins(work: Work) -> None:
    """In thirty races on each database, the first one wins, and both sides get the true state."""
    for _ in range(30):
        job = work.accept(budget={"trials": 1})
        claim = work.pack(1)
        barrier = Barrier(2)

        def finish(claim: Any = claim, barrier: Barrier = barrier) -> str:
            best = measurement(1, 0.9)
            barrier.wait()
            try:
                work.ledger.record(claim, [Finished(0, TrialState.COMPLETED, "", best, 0.9, None)], {})
            except LeaseLost:
                return TrialState.CANCELLED
            return TrialState.COMPLETED

        def cancel(job: Job = job, barrier: Barrier = barrier) -> Job:
            barrier.wait()
            return work.cancel(job)

        with ThreadPoolExecutor(2) as pool:
            wrote, asked = pool.submit(finish), pool.submit(cancel)
            told, answered = wrote.result(), asked.result()
        with work.database.reading() as session:
            (state,) = session.scalars(select(col(Trial.state)).where(col(Trial.job_id) == job.id))
            last = session.scalar(select(func.max(Event.sequence)).where(col(Event.job_id) == job.id))

        assert state == told
        assert answered.state == work.job(job).state == JobState.CANCELLED
        assert last == answered.sequence == work.job(job).sequence


# --- requests that are sent twice


def test_the_same_request_with_the_same_key_creates_one_job(work: Work) -> None:
    """This holds for any number of repeats, even at the same instant."""
    once = Once("mine", "a")
    spec = work.accept().spec
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda _: work.ledger.accept(_spec(spec), once).id, range(8)))
    with work.database.reading() as session:
        count = session.scalar(select(func.count()).select_from(Job))

    assert len(set(jobs)) == 1
    assert count == 2


def test_the_same_request_with_the_same_key_enqueues_one_trial(work: Work) -> None:
    """Each answer is the trial of the first request."""
    job = work.accept(search_space=SPACE)
    numbers = [work.controls.enqueue(job.id, {}, Once("mine", "a")).number for _ in range(3)]

    assert numbers == [0, 0, 0]
    assert work.job(job).reserved == 1


def test_a_key_is_forgotten_after_a_day(work: Work) -> None:
    """No client repeats a request after that time."""
    spec = _spec(work.accept().spec)
    first = work.ledger.accept(spec, Once("mine", "a"))
    forget(work.database)
    second = work.ledger.accept(spec, Once("mine", "a"))
    with work.database.writing() as session:
        session.execute(update(IdempotencyKey).values(at=1.0))
    forget(work.database)
    third = work.ledger.accept(spec, Once("mine", "a"))

    assert first.id == second.id != third.id


def _spec(body: dict[str, Any]) -> TuneSpec:
    return TuneSpec.model_validate(body)
