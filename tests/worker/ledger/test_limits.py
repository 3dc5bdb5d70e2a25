"""The end of a search over a finite space, and trainers that draw its points at the same moment."""

import pytest
from support.worker_tools import Work

from ml.records import Started, TrialRecord, TrialState
from ml.tuning.admission import TrialSource
from ml.tuning.context import TuningContext
from ml.tuning.search import Search
from worker.database.tables import Job
from worker.ledger.leases import Claim
from worker.training.ledger_book import JobSearch, LedgerBook

SPACE = {"batch_size": {"type": "categorical", "choices": [16, 32, 64, 128]}}


def start(work: Work, claim: Claim, number: int, batch_size: int) -> None:
    """Begin a trial at a point."""
    params = {"batch_size": batch_size, "learning_rate": 0.01, "optimizer": "adam"}
    work.ledger.record(claim, [Started(number, params, {"batch_size": batch_size}, {}, 1, 2, 0)], {})


def two_claims(work: Work) -> tuple[Claim, Claim]:
    """Return a pack of each of two workers."""
    one, other = work.leases.claim(), work.other.claim()
    assert one is not None
    assert other is not None
    return one, other


def limit(work: Work, job: Job) -> int:
    """Return the limit of a job now."""
    return work.job(job).trial_limit


def test_two_trainers_cannot_take_the_same_point(work: Work) -> None:
    """Floats that differ by rounding are one point, and a trial may take its own point again."""
    work.accept(search_space=SPACE, budget={"trials": 12})
    one, other = two_claims(work)
    first, second = ({"batch_size": 16, "learning_rate": rate} for rate in (0.3, 0.1 + 0.2))

    assert work.ledger.take(one, TrialRecord(0, TrialState.RUNNING, first))
    assert not work.ledger.take(other, TrialRecord(1, TrialState.RUNNING, second))
    assert work.ledger.take(one, TrialRecord(0, TrialState.RUNNING, first))
    assert work.ledger.take(other, TrialRecord(1, TrialState.RUNNING, {**first, "batch_size": 32}))
    assert [trial.suggestion for trial in work.trials()] == [first, {**first, "batch_size": 32}]


def test_a_trainer_whose_point_was_taken_tries_another(work: Work) -> None:
    """It learns of the other trainer's point when it tries to take it."""
    job = work.accept(search_space=SPACE, budget={"trials": 12}, sampler={"name": "random"})
    one, other = two_claims(work)
    spec = work.spec(job)
    _, wanted = Search(spec).ask(1)
    assert work.ledger.take(one, TrialRecord(0, TrialState.RUNNING, wanted.suggestion))
    book = LedgerBook(work.ledger, other, JobSearch(Search(spec)), None, None, 60.0)
    context = TuningContext(spec, None, book, book.warm.search)
    _, drawn = TrialSource(context, book.ledger.pack(other).record, {}).first()

    assert drawn.number == 1
    assert drawn.suggestion != wanted.suggestion
    assert work.trials()[1].suggestion == drawn.suggestion


def test_a_point_that_was_tried_twice_does_not_take_the_place_of_another(work: Work) -> None:
    """A fifth trial begins in a space of four points, and no sixth."""
    job = work.accept(search_space=SPACE, budget={"trials": 12})
    one, other = two_claims(work)
    start(work, one, 0, 16)
    start(work, other, 1, 16)
    assert limit(work, job) == 5
    for number, batch_size in enumerate((32, 64, 128), start=2):
        record = work.ledger.reserve(one, lambda number: True)
        assert record is not None
        assert record.number == number
        start(work, one, number, batch_size)

    assert work.ledger.reserve(one, lambda number: True) is None
    assert limit(work, job) == 5


def test_a_trial_that_begins_again_is_not_counted_twice(work: Work) -> None:
    """A worker that takes a pack over records the same point for the same trial."""
    job = work.accept(search_space=SPACE, budget={"trials": 12})
    claim = work.leases.claim()
    assert claim is not None
    start(work, claim, 0, 16)
    start(work, claim, 0, 16)

    assert limit(work, job) == 4


@pytest.mark.parametrize(("asked", "found"), [(2, 2), (3, 3), (9, 5)])
def test_a_repeated_point_does_not_raise_the_budget(work: Work, asked: int, found: int) -> None:
    """The limit counts repeated points up to the trials that were asked for, also if these change."""
    job = work.accept(search_space=SPACE, budget={"trials": 2})
    one, other = two_claims(work)
    start(work, one, 0, 16)
    start(work, other, 1, 16)
    if asked > 2:
        work.controls.extend(job.id, {"trials": asked})

    assert limit(work, job) == found
