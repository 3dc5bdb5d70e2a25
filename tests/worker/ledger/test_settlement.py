"""The next step of a job after its packs have ended."""

import pytest
from sqlalchemy import update
from support.worker_tools import Work

from ml.records import TrialState
from worker.database.tables import Job, JobState, PackPurpose, StopReason
from worker.ledger.leases import MAX_DEATHS
from worker.ledger.settlement import HOPELESS


def exhaust(work: Work, value: float | None, state: TrialState = TrialState.COMPLETED) -> int:
    """Run every trial that can be claimed; return their number."""
    count = 0
    while (claim := work.leases.claim()) is not None:
        if claim.purpose == PackPurpose.PUBLISH:
            work.leases.release(claim)
            return count
        work.run_trial(claim, value, state)
        count += 1
    return count


def test_a_job_whose_trials_are_spent_waits_for_publication(work: Work) -> None:
    """It is not completed before its version is published; the next claim is the pack that publishes it."""
    job = work.accept(budget={"trials": 3})
    count = exhaust(work, 0.9)
    claim = work.leases.claim()
    stopping = work.job(job)

    assert count == 3
    assert (stopping.state, stopping.stop_reason) == (JobState.STOPPING, StopReason.TRIALS)
    assert claim is not None
    assert claim.purpose == PackPurpose.PUBLISH


def test_a_grid_ends_when_every_point_was_tried(work: Work) -> None:
    """Without a limit on trials, each point of a grid is tried once."""
    space = {
        "batch_size": {"type": "grid", "values": [16, 32]},
        "learning_rate": {"type": "grid", "values": [0.1, 0.01]},
    }
    job = work.accept(search_space=space, sampler={"name": "grid"}, budget={"epochs": 1})
    count = exhaust(work, 0.9)

    assert count == 4
    assert work.job(job).stop_reason == StopReason.SPACE_EXHAUSTED


def test_a_job_ends_when_its_seconds_are_spent(work: Work) -> None:
    """The limit that is reached first ends the job."""
    job = work.accept(budget={"trials": 100, "seconds": 50.0})
    claim = work.leases.claim()
    assert claim is not None
    with work.database.writing() as session:
        session.execute(update(Job).values(active_seconds=60.0))
    work.run_trial(claim, 0.9)

    assert work.job(job).stop_reason == StopReason.SECONDS
    assert exhaust(work, 0.9) == 0


@pytest.mark.parametrize("state", [TrialState.DIVERGED, TrialState.FAILED])
def test_a_job_without_a_usable_trial_fails_and_says_why(work: Work, state: TrialState) -> None:
    """The error counts the trials by state and quotes the reason of the last."""
    job = work.accept(budget={"trials": 2})
    exhaust(work, None, state)
    ended = work.job(job)

    assert ended.state == JobState.FAILED
    assert ended.error == f"no trial can be published: 2 {state}. Reason of the last trial: for the test"
    assert ended.finished_at is not None


def test_a_job_whose_trials_all_fail_is_stopped(work: Work) -> None:
    """If one trial after another fails and none works, the rest of the budget is not spent."""
    job = work.accept(budget={"trials": 1000})
    count = exhaust(work, None, TrialState.FAILED)

    assert count == HOPELESS
    assert (work.job(job).state, work.job(job).stop_reason) == (JobState.FAILED, StopReason.FAILURES)


def test_failed_trials_do_not_end_a_job_with_a_result(work: Work) -> None:
    """Failures are counted, but the job goes on if at least one trial worked."""
    job = work.accept(budget={"trials": HOPELESS + 5})
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, 0.9)
    exhaust(work, None, TrialState.FAILED)

    assert work.job(job).stop_reason == StopReason.TRIALS
    assert work.job(job).failures == HOPELESS + 4


def test_a_winner_that_cannot_be_published_fails_the_job(work: Work) -> None:
    """If publication keeps failing, the job fails with the reason."""
    job = work.accept(budget={"trials": 1})
    exhaust(work, 0.9)
    for _ in range(MAX_DEATHS):
        claim = work.leases.claim()
        assert claim is not None
        work.leases.died(claim, "the checkpoint is damaged")
    ended = work.job(job)

    assert ended.state == JobState.FAILED
    assert ended.error == "the winner could not be published: the checkpoint is damaged"
