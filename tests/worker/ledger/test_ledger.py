"""The rows that the ledger writes about jobs and trials."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col
from support.worker_tools import FILE, Work, measurement

from ml.records import Finished, Measured, Started, Stop, TrialRecord, TrialState
from ml.seeds import SeedPurpose, derive
from ml.specs import TrainSpec
from worker.database.tables import Artifact, Event, Job, JobState, Measurement, Pack, StopReason, Trial, UsedDataset
from worker.errors import LeaseLost, NotFound


def test_an_accepted_job_is_queued_with_its_whole_specification(work: Work) -> None:
    """Defaults are filled in when a job is accepted, so that a later default does not change it."""
    job = work.job(work.accept())

    assert job.state == JobState.QUEUED
    assert job.spec["sampler"] == {"name": "tpe", "n_startup_trials": 10, "n_ei_candidates": 24}
    assert set(job.spec["search_space"]) == {"batch_size", "learning_rate", "optimizer"}
    assert work.spec(job).budget.trials == 2


def test_the_data_set_is_fixed_by_its_hash_when_a_job_is_accepted(work: Work) -> None:
    """The job records the hash of the data set as well as its name."""
    job = work.accept()
    with work.database.reading() as session:
        dataset = session.get_one(UsedDataset, job.dataset_sha256)

    assert (dataset.name, dataset.images, dataset.shape) == ("digits", 1797, [1, 28, 28])


def test_a_training_job_is_one_trial(work: Work) -> None:
    """It runs like a tuning job with a single trial."""
    job = work.ledger.accept(TrainSpec(model="perceptron", dataset="digits", params={"batch_size": 16}))

    assert (job.kind, job.trial_limit) == ("train", 1)
    assert work.spec(job).search_space["batch_size"].corners() == [16]


def test_every_measurement_of_a_trial_is_kept(work: Work) -> None:
    """Each has its step, its sequence number and its lease epoch."""
    work.accept()
    claim = work.leases.claim()
    assert claim is not None
    work.start(claim, 0)
    epochs = [measurement(1, 0.8), measurement(2, 0.9), measurement(3, None, None)]
    for epoch in epochs:
        work.measure(claim, 0, epoch)
    with work.database.reading() as session:
        rows = session.scalars(select(Measurement).order_by(col(Measurement.step))).all()
        trial = session.scalars(select(Trial)).one()

    assert [row.model_dump(include=set(asdict(epochs[0]))) for row in rows] == [asdict(epoch) for epoch in epochs]
    assert [(row.sequence, row.lease_epoch) for row in rows] == [(5, 1), (6, 1), (7, 1)]
    assert (trial.epochs_run, trial.seconds) == (3, 0.75)


def test_a_pack_is_opened_in_the_state_that_its_last_worker_left(work: Work) -> None:
    """The next worker finds the pack's trials, their drawn values, their start steps and every recorded rung."""
    work.accept()
    claim = work.pack(2)
    work.measure(claim, 0, measurement(1, 0.8), note=1)
    work.leases.release(claim)
    taken = work.other.claim()
    assert taken is not None
    opened = work.ledger.pack(taken).record
    first, second = opened.trials

    assert (first.start_step, first.suggestion, first.attrs) == (0, {"learning_rate": 0.01}, {"note": 1})
    assert first.rungs == {10: measurement(1, 0.8)}
    assert second.rungs == {}
    assert opened.stream_seed == derive(0, SeedPurpose.STREAM, 0)


def test_a_rung_is_recorded_once(work: Work) -> None:
    """A second value for a step of a trial is refused, from any writer."""
    work.accept()
    claim = work.pack(1)
    work.measure(claim, 0, measurement(1, 0.8))

    with pytest.raises(IntegrityError):
        work.measure(claim, 0, measurement(1, 0.9))


def test_the_best_trial_leads_and_the_first_of_equals_stays(work: Work) -> None:
    """A higher validation accuracy leads; an equal one that began later does not."""
    job = work.accept(budget={"trials": 4})
    for value in (0.8, 0.9, 0.9, 0.7):
        claim = work.leases.claim()
        assert claim is not None
        work.run_trial(claim, value)
    ended = work.job(job)

    assert (ended.best_trial, ended.best_value) == (1, 0.9)


def test_a_lower_loss_leads_if_the_loss_is_the_objective(work: Work) -> None:
    """The objective decides if higher or lower is better."""
    job = work.accept(budget={"trials": 2}, objective="val_loss")
    for value in (0.5, 0.4):
        claim = work.leases.claim()
        assert claim is not None
        work.run_trial(claim, value)

    assert work.job(job).best_trial == 1


def test_only_the_leaders_checkpoint_is_kept(work: Work) -> None:
    """The file that a new leader replaces is removed, and so is the file of a trial that does not lead."""
    work.accept(budget={"trials": 3})
    unneeded = []
    for number, value in enumerate((0.8, 0.9, 0.7)):
        claim = work.leases.claim()
        assert claim is not None
        work.start(claim, number)
        finished = Finished(number, TrialState.COMPLETED, "", measurement(1, value), value, None)
        with work.unneeded() as gone:
            work.ledger.record(claim, [finished], {number: (f"file {number}", FILE)})
        unneeded.append(gone)
        work.leases.close(claim)
    with work.database.reading() as session:
        kept = session.scalars(select(Artifact.path)).all()

    assert unneeded == [[], ["file 0"], ["file 2"]]
    assert kept == ["file 1"]


def test_the_best_of_trials_that_finish_together_leads(work: Work) -> None:
    """Their ends are recorded together; one file is kept, and the others are removed."""
    job = work.accept(budget={"trials": 3})
    claim = work.pack(3)
    values = (0.8, 0.9, 0.7)
    ends = [Finished(n, TrialState.COMPLETED, "", measurement(1, v), v, None) for n, v in enumerate(values)]
    with work.unneeded() as unneeded:
        work.ledger.record(claim, ends, {n: (f"file {n}", FILE) for n in range(3)})
    with work.database.reading() as session:
        kept = session.scalars(select(Artifact.path)).all()

    assert (work.job(job).best_trial, work.job(job).best_value) == (1, 0.9)
    assert sorted(unneeded) == ["file 0", "file 2"]
    assert kept == ["file 1"]


@pytest.mark.parametrize("state", [TrialState.DIVERGED, TrialState.FAILED, TrialState.CANCELLED])
def test_a_trial_without_a_result_never_leads(work: Work, state: TrialState) -> None:
    """A trial that was not judged has no value, even if it was measured before."""
    job = work.accept()
    claim = work.leases.claim()
    assert claim is not None
    number = work.run_trial(claim, 0.99, state)
    with work.database.reading() as session:
        trial = session.scalars(select(Trial).where(col(Trial.number) == number)).one()

    assert trial.value is None
    assert work.job(job).best_trial is None


def test_changes_has_each_change_since_the_last_read_once(work: Work) -> None:
    """A reader that continues from its last number misses no change of any trial."""
    job = work.accept()
    one, two = work.leases.claim(), work.other.claim()
    assert one is not None
    assert two is not None
    first, seen = work.ledger.changes(job.id, 0)
    nothing, same = work.ledger.changes(job.id, seen)
    work.start(two, 1)
    work.measure(two, 1, measurement(1, 0.8), rung=1)
    (changed,), later = work.ledger.changes(job.id, same)

    assert [record.number for record in first] == [0, 1]
    assert nothing == []
    assert (changed.number, changed.values, changed.attrs) == (1, {10: 0.8}, {"rung": 1})
    assert later > same


def test_a_jobs_history_has_every_state_in_order(work: Work) -> None:
    """Every transition of the job is an event."""
    job = work.accept(budget={"trials": 1})
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, 0.9)
    with work.database.reading() as session:
        events = session.scalars(select(Event).where(col(Event.trial).is_(None)).order_by(col(Event.sequence))).all()

    assert [event.state for event in events] == [JobState.QUEUED, JobState.RUNNING, JobState.STOPPING]
    assert work.job(job).sequence >= events[-1].sequence


def test_cancelling_is_idempotent_and_leaves_an_ended_job_as_it_is(work: Work) -> None:
    """A job that waited ends at once; cancelling again changes nothing."""
    job = work.accept()
    first = work.cancel(job)
    again = work.cancel(job)

    assert (first.state, first.stop_reason) == (JobState.CANCELLED, StopReason.CANCELLED)
    assert again.model_dump() == work.job(job).model_dump()
    assert work.leases.claim() is None


def test_cancelling_an_unknown_job_is_refused(work: Work) -> None:
    """An unknown id raises NotFound."""
    with pytest.raises(NotFound, match="there is no such job"):
        work.controls.cancel("nothing")


def test_a_value_that_is_no_number_is_null_in_the_database(work: Work) -> None:
    """Every value is finite or null."""
    work.accept()
    claim = work.leases.claim()
    assert claim is not None
    work.start(claim, 0)
    work.measure(claim, 0, measurement(1, None, None))
    with work.database.reading() as session:
        row = session.scalars(select(Measurement)).one()

    assert (row.train_loss, row.val_loss, row.val_accuracy) == (None, None, None)


def test_equal_jobs_have_different_ids(work: Work) -> None:
    """Posting the same specification twice creates two jobs."""
    one, two = work.accept(), work.accept()
    with work.database.reading() as session:
        ids = set(session.scalars(select(Job.id)))

    assert ids == {one.id, two.id}


def test_jobs_that_are_posted_at_once_are_all_accepted(work: Work) -> None:
    """Eight jobs that are the first on one data set can be posted at once."""
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: work.accept(), range(8)))

    assert len({job.id for job in jobs}) == 8


# --- packs of several trials


def anyone(number: int) -> bool:
    """Accept any trial into a pack."""
    return True


def test_a_budget_is_exact_if_many_workers_claim_and_reserve_at_once(work: Work) -> None:
    """Workers that begin packs and workers that fill packs together begin exactly as many trials as allowed."""
    work.accept(budget={"trials": 25})
    held = [work.pack(1) for _ in range(3)]
    with ThreadPoolExecutor(12) as pool:
        claims = [pool.submit(work.other.claim) for _ in range(15)]
        reserved = [pool.submit(work.ledger.reserve, held[n % 3], anyone) for n in range(30)]
    claimed = [future.result() for future in claims if future.result()]
    filled = [record.number for future in reserved if (record := future.result())]

    assert [trial.number for trial in work.trials()] == list(range(25))
    assert 3 + len(claimed) + len(filled) == 25
    assert len(set(filled)) == len(filled)


def test_a_reserved_trial_belongs_to_the_pack_that_reserved_it(work: Work) -> None:
    """Its number is the job's next, and the next worker finds it in the pack."""
    work.accept(budget={"trials": 5})
    one, two = work.pack(1), work.pack(1, work.other)
    record = work.ledger.reserve(one, anyone)

    assert record is not None
    assert (record.number, record.suggestion) == (2, None)
    assert [trial.number for trial in work.reserved(one)] == [0, 2]
    assert [trial.number for trial in work.reserved(two)] == [1]


def test_a_trial_that_does_not_fit_is_left_to_another_pack(work: Work) -> None:
    """The pack is asked about the next number; if it refuses, that number goes to the next pack that asks."""
    work.accept(budget={"trials": 5})
    claim = work.pack(1)
    asked: list[int] = []

    def none(number: int) -> bool:
        asked.append(number)
        return False

    refused = work.ledger.reserve(claim, none)
    following = work.ledger.reserve(claim, anyone)

    assert (refused, asked) == (None, [1])
    assert following is not None
    assert following.number == 1


def test_a_cancelled_job_reserves_nothing_more(work: Work) -> None:
    """Its packs get no further trials."""
    job = work.accept(budget={"trials": 5})
    claim = work.pack(2)
    work.cancel(job)

    with pytest.raises(LeaseLost):
        work.ledger.reserve(claim, anyone)
    assert work.job(job).reserved == 2


def test_a_paused_job_stops_its_pack_at_the_next_trial(work: Work) -> None:
    """The pack is told to stop, and begins the trial once the job is resumed."""
    job = work.accept(budget={"trials": 5})
    claim = work.pack(2)
    work.controls.pause(job.id)
    paused = work.ledger.reserve(claim, anyone)
    work.controls.resume(job.id)
    resumed = work.ledger.reserve(claim, anyone)

    assert paused == Stop.RELEASED
    assert resumed == TrialRecord(2, TrialState.RUNNING)


def test_a_job_whose_seconds_are_spent_reserves_nothing_more(work: Work) -> None:
    """The limit that is reached first ends the job."""
    job = work.accept(budget={"trials": 5, "seconds": 50.0})
    claim = work.pack(2)
    with work.database.writing() as session:
        session.execute(update(Job).values(active_seconds=60.0))

    assert work.ledger.reserve(claim, anyone) is None
    assert work.job(job).reserved == 2


def test_a_jobs_first_pack_decides_how_many_trials_train_together(work: Work) -> None:
    """Later packs get that number, even if they measured another; each records its own key."""
    job = work.accept(budget={"trials": 9})
    before = work.ledger.lanes(job.id)
    one, two = work.pack(1), work.pack(1, work.other)
    settled = [work.ledger.fix_lanes(claim, f"batch {lanes}", lanes) for claim, lanes in ((one, 3), (two, 8))]

    assert (before, settled, work.ledger.lanes(job.id)) == (None, [3, 3], 3)
    assert [(pack.key, pack.lanes) for pack in work.packs()] == [("batch 3", 3), ("batch 8", 3)]


def test_a_resumed_pack_keeps_its_lanes(work: Work) -> None:
    """A released pack has the same width for its next worker."""
    work.accept(budget={"trials": 9})
    claim = work.pack(2)
    work.ledger.fix_lanes(claim, "batch 32", 4)
    work.leases.release(claim)
    taken = work.other.claim()
    assert taken is not None

    assert work.ledger.fix_lanes(taken, "batch 32", 8) == 4


def test_events_of_several_trials_are_recorded_together(work: Work) -> None:
    """A rung of one trial, the end of another and the start of a third are one transaction."""
    job = work.accept(budget={"trials": 3})
    claim = work.pack(2)
    work.ledger.reserve(claim, anyone)
    done = measurement(1, 0.9)
    events = [
        Measured(0, measurement(1, 0.8), {}),
        Measured(1, done, {}),
        Finished(1, TrialState.PRUNED, "worse", done, 0.9, None),
        Started(2, {"batch_size": 32}, {}, {}, 1, 2, 7, lane=1),
    ]
    work.ledger.record(claim, events, {})
    records, _ = work.ledger.changes(job.id, 0)
    found = {record.number: (record.state, record.values, record.suggestion) for record in records}

    assert found == {
        0: (TrialState.RUNNING, {10: 0.8}, {"learning_rate": 0.01}),
        1: (TrialState.PRUNED, {10: 0.9}, {"learning_rate": 0.01}),
        2: (TrialState.RUNNING, {}, {}),
    }
    assert (work.trials()[2].start_step, work.trials()[2].lane) == (7, 1)
    assert [record.lane for record in work.ledger.pack(claim).record.trials] == [0, 0, 1]


def rows(work: Work) -> list[dict[str, Any]]:
    """Return all rows of jobs, trials and their results."""
    with work.database.reading() as session:
        tables = (Job, Trial, Measurement, Event, Artifact)
        return [row.model_dump() for table in tables for row in session.scalars(select(table))]


def test_a_stale_claim_writes_no_event(work: Work) -> None:
    """None of four events is written if another worker has claimed the pack."""
    work.accept(budget={"trials": 2})
    claim = work.pack(2)
    work.leases.release(claim)
    assert work.other.claim() is not None
    before = rows(work)
    events = [event for n in range(2) for event in rung_and_end(n)]

    with pytest.raises(LeaseLost):
        work.ledger.record(claim, events, {0: ("file 0", FILE)})
    assert rows(work) == before


def test_events_are_recorded_all_or_not_at_all(work: Work) -> None:
    """If the last event cannot be written, the events before it are not written either."""
    work.accept(budget={"trials": 2})
    claim = work.pack(2)
    before = rows(work)
    twice = Measured(1, measurement(1, 0.7), {})

    with pytest.raises(IntegrityError):
        work.ledger.record(claim, [*rung_and_end(0), twice, twice], {0: ("file 0", FILE)})
    assert rows(work) == before


def rung_and_end(number: int, value: float = 0.9) -> list[Measured | Finished]:
    """Return the events of a trial that ends at its first rung."""
    best = measurement(1, value)
    return [Measured(number, best, {}), Finished(number, TrialState.COMPLETED, "", best, value, None)]


# --- a long job


def statements(work: Work, job: Job, number: int) -> dict[str, int]:
    """Begin, measure, read and end a trial as the best so far; return the number of SQL statements of each step."""
    claim = work.pack(0)
    _, seen = work.ledger.changes(job.id, 0)
    *rung, end = rung_and_end(number, 0.5 + number / 10_000)
    counts = {}
    steps: dict[str, Callable[[], object]] = {
        "start": lambda: work.start(claim, number),
        "measure": lambda: work.ledger.record(claim, rung, {}),
        "read": lambda: work.ledger.changes(job.id, seen),
        "end": lambda: work.ledger.record(claim, [end], {number: (f"file {number}", FILE)}),
    }
    for name, step in steps.items():
        with counted(work) as found:
            step()
        counts[name] = len(found)
    work.leases.close(claim)
    return counts


@contextmanager
def counted(work: Work) -> Iterator[list[str]]:
    """Collect the SQL statements that are executed in the block."""
    found: list[str] = []

    def note(*arguments: Any) -> None:
        found.append(arguments[2])

    event.listen(work.database.engine, "before_cursor_execute", note)
    yield found
    event.remove(work.database.engine, "before_cursor_execute", note)


def end_trials(work: Work, job: Job, until: int) -> None:
    """Record that all trials up to a number have ended after ten rungs, without running them."""
    with work.database.writing() as session:
        row = session.get_one(Job, job.id)
        pack = Pack(job_id=job.id, purpose="train", key="", lanes=1, done=True)
        session.add(pack)
        session.flush()
        own = {
            "job_id": job.id,
            "pack_id": pack.id,
            "state": "pruned",
            "value": 0.5,
            "suggestion": {"learning_rate": 0.1},
        }
        numbers = range(row.reserved, until)
        trials = [Trial(**own, number=n, sequence=row.sequence + n, created_at=1.0) for n in numbers]
        session.add_all(trials)
        session.flush()
        session.add_all(Measurement(trial_id=t.id, **asdict(measurement(e, 0.5))) for t in trials for e in range(10))
        row.reserved, row.sequence = until, row.sequence + until


def test_the_thousandth_trial_issues_as_many_statements_as_the_tenth(work: Work) -> None:
    """The cost of recording and reading a trial does not depend on the length of its job."""
    job = work.accept(budget={"trials": 2000})
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, 0.5)
    counts = []
    for number in (10, 1000):
        for until in [*range(100, number, 100), number]:  # transactions as short as those of a trainer
            end_trials(work, job, until)
        counts.append(statements(work, job, number))

    assert counts[0] == counts[1]
    assert all(0 < count < 20 for count in counts[0].values())
