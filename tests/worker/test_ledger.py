"""What the ledger writes of jobs and trials."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest
from sqlalchemy import select
from sqlmodel import col
from worker_tools import FILE, Work, measurement

from ml.records import Finished, TrialState
from ml.specs import TrainSpec
from worker.errors import NotFound
from worker.ledger import tune_spec
from worker.tables import Artifact, Dataset, Event, Job, JobState, Measurement, StopReason, Trial


def test_an_accepted_job_is_queued_with_its_whole_specification(work: Work) -> None:
    """Defaults are filled in when a job is accepted, so that a later default does not change it."""
    job = work.job(work.accept())

    assert job.state == JobState.QUEUED
    assert job.spec["sampler"] == {"name": "tpe", "n_startup_trials": 10, "n_ei_candidates": 24}
    assert set(job.spec["search_space"]) == {"batch_size", "learning_rate", "optimizer"}
    assert tune_spec(job).budget.trials == 2


def test_the_data_set_is_fixed_by_its_hash_when_a_job_is_accepted(work: Work) -> None:
    """The job names the bytes, not only the name."""
    job = work.accept()
    with work.database.reading() as session:
        dataset = session.get_one(Dataset, job.dataset_sha256)

    assert (dataset.name, dataset.images, dataset.shape) == ("digits", 1797, [1, 28, 28])


def test_a_training_job_is_one_trial(work: Work) -> None:
    """It runs on the same path as a tuning job."""
    job = work.ledger.accept(TrainSpec(model="perceptron", dataset="digits", params={"batch_size": 16}))

    assert (job.kind, job.trial_limit) == ("train", 1)
    assert tune_spec(job).search_space["batch_size"].corners() == [16]


def test_every_epoch_of_a_trial_is_kept(work: Work) -> None:
    """Measurements are what was recorded, step by step."""
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

    assert [row.model_dump(exclude={"trial_id"}) for row in rows] == [asdict(epoch) for epoch in epochs]
    assert (trial.epochs_run, trial.seconds) == (3, 0.75)


def test_a_trial_that_begins_again_forgets_its_first_attempt(work: Work) -> None:
    """Results are recorded once, however often a trial is taken up."""
    work.accept()
    claim = work.leases.claim()
    assert claim is not None
    work.start(claim, 0)
    work.measure(claim, 0, measurement(1, 0.8), note=1)
    work.leases.release(claim)
    taken = work.other.claim()
    assert taken is not None
    work.start(taken, 0)
    with work.database.reading() as session:
        trial = session.scalars(select(Trial)).one()
        left = session.scalars(select(Measurement)).all()

    assert left == []
    assert (trial.epochs_run, trial.seconds, trial.attrs) == (0, 0.0, {})


def test_the_best_trial_leads_and_the_first_of_equals_stays(work: Work) -> None:
    """A higher validation accuracy leads; an equal one that began later does not."""
    job = work.accept(budget={"trials": 4})
    for value in (0.8, 0.9, 0.9, 0.7):
        claim = work.leases.claim()
        assert claim is not None
        work.run_trial(claim, value)
    ended = work.job(job)

    assert (ended.best_trial, ended.best_value) == (1, 0.9)


def test_a_lower_loss_leads_where_the_loss_is_the_objective(work: Work) -> None:
    """The direction follows the objective."""
    job = work.accept(budget={"trials": 2}, objective="val_loss")
    for value in (0.5, 0.4):
        claim = work.leases.claim()
        assert claim is not None
        work.run_trial(claim, value)

    assert work.job(job).best_trial == 1


def test_only_the_leaders_checkpoint_is_kept(work: Work) -> None:
    """What a new leader replaces is handed back for removal, and so is the file of one that does not lead."""
    work.accept(budget={"trials": 3})
    unneeded = []
    for number, value in enumerate((0.8, 0.9, 0.7)):
        claim = work.leases.claim()
        assert claim is not None
        work.start(claim, number)
        finished = Finished(number, TrialState.COMPLETED, "", measurement(1, value), value, None)
        unneeded.append(work.ledger.record(claim, [finished], {number: (f"file {number}", FILE)}))
        work.leases.close(claim)
    with work.database.reading() as session:
        kept = session.scalars(select(Artifact.path)).all()

    assert unneeded == [[], ["file 0"], ["file 2"]]
    assert kept == ["file 1"]


@pytest.mark.parametrize("state", [TrialState.DIVERGED, TrialState.FAILED, TrialState.CANCELLED])
def test_a_trial_without_a_result_never_leads(work: Work, state: TrialState) -> None:
    """Whatever it measured before, a trial that was not judged has no value."""
    job = work.accept()
    claim = work.leases.claim()
    assert claim is not None
    number = work.run_trial(claim, 0.99, state)
    with work.database.reading() as session:
        trial = session.scalars(select(Trial).where(col(Trial.number) == number)).one()

    assert trial.value is None
    assert work.job(job).best_trial is None


def test_changes_are_what_changed_since_and_nothing_else(work: Work) -> None:
    """A reader that goes on from its last number sees every change of every trial, once."""
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


def test_a_jobs_history_is_numbered_without_gaps_in_its_states(work: Work) -> None:
    """Every transition of the job is an event, in order."""
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
    first = work.ledger.cancel(job.id)
    again = work.ledger.cancel(job.id)

    assert (first.state, first.stop_reason) == (JobState.CANCELLED, StopReason.CANCELLED)
    assert again.model_dump() == work.job(job).model_dump()
    assert work.leases.claim() is None


def test_cancelling_what_is_not_there_says_so(work: Work) -> None:
    """An unknown id is NotFound."""
    with pytest.raises(NotFound, match="there is no such job"):
        work.ledger.cancel("nothing")


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


def test_jobs_are_told_apart_by_their_ids(work: Work) -> None:
    """Two jobs of the same specification are two jobs."""
    one, two = work.accept(), work.accept()
    with work.database.reading() as session:
        ids = set(session.scalars(select(Job.id)))

    assert ids == {one.id, two.id}


def test_jobs_that_are_posted_at_once_are_all_accepted(work: Work) -> None:
    """Eight first jobs on one data set do not get in each other's way."""
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: work.accept(), range(8)))

    assert len({job.id for job in jobs}) == 8
