"""Claims and leases, and the fence that keeps two workers from one pack."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select, update
from sqlmodel import col
from support.worker_tools import FILE, Work, measurement

from ml.records import Finished, Stop, TrialState
from ml.seeds import SeedPurpose, derive
from worker.database.clock import clock
from worker.database.tables import Event, Job, JobState, Pack, PackPurpose, StopReason, Trial
from worker.errors import LeaseLost
from worker.ledger.leases import FIRST_WAIT, MAX_DEATHS, MAX_LOSSES, Claim, Leases
from worker.ledger.settlement import HOPELESS


def expire(work: Work, claim: Claim) -> None:
    """Let a lease run out."""
    with work.database.writing() as session:
        session.execute(update(Pack).where(col(Pack.id) == claim.pack_id).values(lease_expires_at=1.0))


def expire_all(work: Work) -> None:
    """Let every lease run out."""
    with work.database.writing() as session:
        session.execute(update(Pack).where(col(Pack.lease_expires_at).is_not(None)).values(lease_expires_at=1.0))


def trial_of(work: Work, claim: Claim) -> Trial:
    """Return the trial of a claimed pack."""
    with work.database.reading() as session:
        return session.scalars(select(Trial).where(col(Trial.pack_id) == claim.pack_id)).one()


def test_a_claim_without_jobs_returns_none(work: Work) -> None:
    """A new database has no pack to claim."""
    assert work.leases.claim() is None


def test_a_claim_begins_a_trial_and_moves_the_job_to_running(work: Work) -> None:
    """The first claim reserves trial 0."""
    job = work.accept()
    claim = work.leases.claim()
    assert claim is not None

    assert claim.purpose == PackPurpose.TRAIN
    assert [record.number for record in work.reserved(claim)] == [0]
    assert work.job(job).state == JobState.RUNNING


def test_two_workers_never_hold_the_same_pack(work: Work) -> None:
    """A second claim begins another trial, and a claim beyond the budget returns None."""
    work.accept()
    claims = [work.leases.claim(), work.other.claim(), work.leases.claim()]

    assert claims[2] is None
    assert len({claim.pack_id for claim in claims if claim}) == 2


def test_a_budget_is_exact_if_many_workers_claim_at_once(work: Work) -> None:
    """Sixteen workers that claim at the same time begin exactly as many trials as the budget allows."""
    work.accept(budget={"trials": 7})
    workers = [Leases(work.database, str(i), 60) for i in range(16)]
    with ThreadPoolExecutor(16) as pool:
        claims = [claim for claim in pool.map(lambda worker: worker.claim(), workers) if claim]
    numbers = sorted(trial_of(work, claim).number for claim in claims)

    assert numbers == list(range(7))


def test_jobs_share_the_workers(work: Work) -> None:
    """A job with many trials does not starve a later one."""
    first = work.accept(budget={"trials": 1000})
    second = work.accept(budget={"trials": 1000})
    owners = [claim.job_id for _ in range(4) if (claim := work.leases.claim())]

    assert sorted(owners) == sorted([first.id, first.id, second.id, second.id])


def test_a_lost_pack_goes_to_another_worker_with_its_trial(work: Work) -> None:
    """After a lease has run out, the next claim gets the same pack with a higher epoch."""
    work.accept()
    claim = work.leases.claim()
    assert claim is not None
    expire(work, claim)
    taken = work.other.claim()

    assert taken is not None
    assert taken.pack_id == claim.pack_id
    assert taken.epoch > claim.epoch
    assert [record.number for record in work.reserved(taken)] == [0]


def test_a_worker_that_lost_its_lease_cannot_write(work: Work) -> None:
    """Every write of the old holder is refused and changes no row."""
    work.accept()
    claim = work.leases.claim()
    assert claim is not None
    work.start(claim, 0)
    expire(work, claim)
    taken = work.other.claim()
    assert taken is not None

    with pytest.raises(LeaseLost):
        work.start(claim, 0)
    with pytest.raises(LeaseLost):
        work.measure(claim, 0, measurement(1, 0.9))
    with pytest.raises(LeaseLost):
        work.ledger.record(claim, [Finished(0, TrialState.COMPLETED, "", None, None, None)], {})
    with pytest.raises(LeaseLost):
        work.ledger.reserve(claim, lambda number: True)
    with pytest.raises(LeaseLost):
        work.ledger.fix_lanes(claim, "key", 2)
    with pytest.raises(LeaseLost):
        work.leases.close(claim)
    assert not work.leases.renew(claim)
    assert trial_of(work, taken).state == TrialState.RUNNING
    assert [(pack.key, pack.lanes) for pack in work.packs()] == [("", 1)]


def test_releasing_a_lost_pack_does_not_take_it_from_its_new_owner(work: Work) -> None:
    """A late release changes nothing."""
    work.accept()
    claim = work.leases.claim()
    assert claim is not None
    expire(work, claim)
    taken = work.other.claim()
    work.leases.release(claim)
    assert taken is not None

    assert work.other.renew(taken)


def test_renewing_moves_the_expiry_by_the_databases_clock(work: Work) -> None:
    """A renewed lease lasts its full time from now."""
    work.accept()
    claim = work.leases.claim()
    assert claim is not None
    expire(work, claim)
    renewed = work.leases.renew(claim)
    with work.database.reading() as session:
        expiry = session.get_one(Pack, claim.pack_id).lease_expires_at or 0
        remaining = expiry - clock(session)

    assert renewed
    assert 55 < remaining <= 60


def test_a_released_pack_can_be_claimed_at_once(work: Work) -> None:
    """The trial of a draining worker goes to the next worker."""
    work.accept()
    claim = work.leases.claim()
    assert claim is not None
    work.leases.release(claim)
    taken = work.other.claim()

    assert taken is not None
    assert taken.pack_id == claim.pack_id


def test_one_death_of_a_trainer_is_not_held_against_its_trial(work: Work) -> None:
    """After the first death the trial runs again."""
    work.accept()
    claim = work.leases.claim()
    assert claim is not None
    work.leases.died(claim, "signal SIGKILL")

    assert trial_of(work, claim).state == TrialState.RUNNING


def test_a_trial_on_which_trainers_keep_dying_fails(work: Work) -> None:
    """At the last death the trial fails with the reason, and the job goes on with its next trial."""
    job = work.accept()
    for _ in range(MAX_DEATHS):
        claim = work.leases.claim()
        assert claim is not None
        work.leases.died(claim, "signal SIGKILL")
    trial = trial_of(work, claim)
    following = work.leases.claim()

    assert (trial.state, trial.reason) == (TrialState.FAILED, "signal SIGKILL")
    assert following is not None
    assert trial_of(work, following).number == 1
    assert work.job(job).failures == 1


def test_seconds_count_only_while_a_pack_is_leased(work: Work) -> None:
    """A job without workers does not use up its time limit."""
    job = work.accept(budget={"trials": 5, "seconds": 1000.0})
    claim = work.leases.claim()
    assert claim is not None
    with work.database.writing() as session:  # leased for 30 s an hour ago, and not renewed since
        began = clock(session) - 3600
        session.execute(update(Pack).values(lease_expires_at=began + 30))
        session.execute(update(type(job)).values(active_since=began))
    taken = work.other.claim()
    assert taken is not None
    work.other.release(taken)

    assert 30 <= work.job(job).active_seconds < 40


@pytest.mark.parametrize(("rules", "seconds"), [(1, 30), (2, 0)])
def test_the_publication_of_the_winner_takes_no_seconds_of_the_job(work: Work, rules: int, seconds: int) -> None:
    """No trial runs meanwhile. Jobs of an earlier release count it, as they did."""
    job = work.accept(budget={"trials": 1, "seconds": 1000.0})
    with work.database.writing() as session:
        session.get_one(Job, job.id).rules = rules
    training = work.pack(1)
    work.run_trial(training, 0.9)
    before = work.job(job).active_seconds
    publishing = work.leases.claim()
    assert publishing is not None
    with work.database.writing() as session:  # leased for 30 s an hour ago, and not renewed since
        began = clock(session) - 3600
        session.execute(update(Pack).where(col(Pack.id) == publishing.pack_id).values(lease_expires_at=began + 30))
        session.execute(update(Job).where(col(Job.active_since).is_not(None)).values(active_since=began))
    work.leases.release(publishing)

    assert publishing.purpose == "publish"
    assert work.job(job).active_seconds - before == pytest.approx(seconds, abs=1)


def test_a_worker_is_told_to_stop_when_the_seconds_are_spent(work: Work) -> None:
    """The supervisor reads the order from the database."""
    work.accept(budget={"seconds": 0.05})
    claim = work.leases.claim()
    assert claim is not None
    deadline = time.monotonic() + 5
    while (stop := work.leases.orders(claim).stop) is None and time.monotonic() < deadline:
        pass

    assert stop == Stop.SECONDS
    assert work.other.claim() is None


def test_a_worker_is_told_to_stop_a_cancelled_job_and_writes_no_more(work: Work) -> None:
    """Cancelling ends the job, its trials and its packs at once."""
    job = work.accept()
    claim = work.pack(1)
    ended = work.cancel(job)
    asked = work.leases.orders(claim).stop
    sequence = ended.sequence
    with pytest.raises(LeaseLost):
        work.measure(claim, 0, measurement(1, 0.9))
    work.leases.died(claim, "signal SIGKILL")
    work.leases.release(claim)

    assert (ended.state, ended.stop_reason) == (JobState.CANCELLED, StopReason.CANCELLED)
    assert (asked, work.other.claim()) == (Stop.CANCELLED, None)
    assert trial_of(work, claim).state == TrialState.CANCELLED
    assert work.job(job).sequence == sequence


def test_the_time_that_the_machine_slept_does_not_count(work: Work) -> None:
    """A lease that ran out an hour ago and is renewed now counts only until it ran out."""
    job = work.accept(budget={"trials": 5, "seconds": 600.0})
    claim = work.leases.claim()
    assert claim is not None
    with work.database.writing() as session:
        began = clock(session) - 3600
        session.execute(update(Pack).values(lease_expires_at=began + 30))
        session.execute(update(Job).values(active_since=began))
    asked = work.leases.orders(claim).stop
    renewed = work.leases.renew(claim)
    work.leases.release(claim)

    assert (asked, renewed) == (None, True)
    assert 30 <= work.job(job).active_seconds < 40


def test_closing_a_pack_cancels_a_trial_that_never_began(work: Work) -> None:
    """No trial stays running in a job that has ended."""
    job = work.accept(budget={"trials": 1})
    claim = work.leases.claim()
    assert claim is not None
    work.leases.close(claim)

    assert trial_of(work, claim).state == TrialState.CANCELLED
    assert work.job(job).state == JobState.FAILED


def test_two_workers_stop_a_job_whose_trials_all_fail(work: Work) -> None:
    """Failures are added up across workers whose packs overlap in time."""
    job = work.accept(budget={"trials": 1000})
    held = work.leases.claim()
    for _ in range(HOPELESS + 5):
        following = work.other.claim()
        assert held is not None
        work.run_trial(held, None, TrialState.FAILED)
        held = following
        if held is None:
            break

    assert work.job(job).state == JobState.FAILED
    assert HOPELESS <= work.job(job).failures <= HOPELESS + 1


# --- a trainer dies on several trials


def guilty_pack(work: Work) -> Claim:
    """Claim a pack of four running trials whose key is set."""
    claim = work.pack(4)
    work.ledger.fix_lanes(claim, "batch 32", 4)
    return claim


def serve(work: Work, guilty: int) -> list[list[int]]:
    """Work on all packs: trainers die on the guilty trial, others complete. Return each death's trials."""
    died: list[list[int]] = []
    while (claim := work.leases.claim()) and claim.purpose == PackPurpose.TRAIN:
        numbers = [record.number for record in work.reserved(claim)]
        if guilty in numbers:
            died.append(numbers)
            work.leases.died(claim, "signal SIGKILL")
            continue
        for number in numbers:
            best = measurement(1, 0.5)
            work.ledger.record(claim, [Finished(number, TrialState.COMPLETED, "", best, 0.5, None)], {})
        work.leases.close(claim)
    return died


def test_a_pack_on_which_a_trainer_died_is_halved(work: Work) -> None:
    """The second half gets a new pack; both keep key and stream, and no trial counts as failed."""
    job = work.accept(budget={"trials": 4}, seed=7)
    work.leases.died(guilty_pack(work), "signal SIGKILL")
    packs = work.packs()
    halves = [[trial.number for trial in work.trials() if trial.pack_id == pack.id] for pack in packs]

    assert halves == [[0, 1], [2, 3]]
    assert [(pack.key, pack.lanes, pack.deaths) for pack in packs] == [("batch 32", 2, 0)] * 2
    assert [pack.stream_seed for pack in packs] == [derive(7, SeedPurpose.STREAM, 0)] * 2
    assert [pack.parted for pack in packs] == [True, True]
    assert [trial.lane for trial in work.trials()][2:] == [0, 1]
    assert {trial.state for trial in work.trials()} == {TrialState.RUNNING}
    assert work.job(job).failures == 0


@pytest.mark.parametrize(
    ("guilty", "died"),
    [
        (0, [[0, 1, 2, 3], [0, 1], [0], [0]]),
        (1, [[0, 1, 2, 3], [0, 1], [1], [1]]),
        (3, [[0, 1, 2, 3], [2, 3], [3], [3]]),
    ],
)
def test_halves_are_halved_until_the_guilty_trial_fails_alone(work: Work, guilty: int, died: list[list[int]]) -> None:
    """The other trials of its pack complete; only deaths on a single trial count."""
    job = work.accept(budget={"trials": 4})
    work.leases.died(guilty_pack(work), "signal SIGKILL")
    found = [[0, 1, 2, 3], *serve(work, guilty)]
    states = {trial.number: trial.state for trial in work.trials()}

    assert found == died
    assert states == {n: TrialState.FAILED if n == guilty else TrialState.COMPLETED for n in range(4)}
    assert [trial.reason for trial in work.trials() if trial.number == guilty] == ["signal SIGKILL"]
    assert (work.job(job).failures, sum(pack.deaths for pack in work.packs())) == (1, MAX_DEATHS)


def test_halves_are_not_filled_up_with_new_trials(work: Work) -> None:
    """A half has only as many lanes as trials; otherwise new trials would keep joining the guilty one."""
    job = work.accept(budget={"trials": 100})
    work.leases.died(guilty_pack(work), "signal SIGKILL")
    widths = []
    for _ in range(2):
        half = work.leases.claim()
        assert half is not None
        widths.append(work.ledger.fix_lanes(half, "batch 32", 4))

    assert widths == [2, 2]
    assert work.ledger.lanes(job.id) == 4


def test_three_trials_are_halved_too(work: Work) -> None:
    """One stays and two move to another pack; a trial that was only reserved moves with its half."""
    work.accept(budget={"trials": 3})
    claim = work.pack(2)
    work.ledger.reserve(claim, lambda number: True)
    work.leases.died(claim, "signal SIGKILL")
    claims = [work.leases.claim(), work.other.claim()]
    numbers = [[record.number for record in work.reserved(claim)] for claim in claims if claim]

    assert numbers == [[0], [1, 2]]


def test_trials_that_had_ended_stay_with_their_pack(work: Work) -> None:
    """Only running trials are divided."""
    work.accept(budget={"trials": 3})
    claim = work.pack(3)
    work.ledger.record(claim, [Finished(0, TrialState.COMPLETED, "", measurement(1, 0.5), 0.5, None)], {})
    work.leases.died(claim, "signal SIGKILL")
    one, two = work.packs()

    assert [trial.pack_id for trial in work.trials()] == [one.id, one.id, two.id]
    assert work.trials()[0].state == TrialState.COMPLETED


# --- a lost worker


def test_any_process_takes_back_a_lost_pack(work: Work) -> None:
    """The pack is unclaimed, its owner can no longer write, and the history names the lost worker and the finder."""
    job = work.accept()
    claim = work.pack(1)
    expire(work, claim)
    reaped = [work.other.reap(), work.other.reap()]
    (pack,) = work.packs()
    with work.database.reading() as session:
        told = session.scalars(select(Event).order_by(col(Event.sequence).desc())).first()

    assert reaped == [1, 0]
    assert (pack.lease_owner, pack.lost_leases, pack.lease_epoch > claim.epoch) == (None, 1, True)
    assert told is not None
    assert (told.detail, told.by) == (f"pack {pack.id} was lost: its worker one did not renew its lease", "two")
    assert work.job(job).state == JobState.RUNNING
    with pytest.raises(LeaseLost):
        work.measure(claim, 0, measurement(1, 0.9))


def test_a_pack_that_is_lost_repeatedly_waits_longer_each_time(work: Work) -> None:
    """The first loss causes no wait; a new checkpoint resets the count."""
    work.accept()
    waits = []
    for _ in range(3):
        work.pack(0)
        expire_all(work)
        work.other.reap()
        with work.database.reading() as session:
            waits.append((work.packs()[0].not_before or clock(session)) - clock(session))
        with work.database.writing() as session:
            session.execute(update(Pack).values(not_before=None))
    claim = work.pack(0)
    work.ledger.keep(claim, 10, ("a", FILE))

    assert waits == pytest.approx([0, FIRST_WAIT, 2 * FIRST_WAIT], abs=1)
    assert work.packs()[0].lost_leases == 0


def test_a_pack_that_waits_is_not_claimed(work: Work) -> None:
    """Another trial of the job begins instead."""
    work.accept()
    claim = work.pack(1)
    work.leases.release(claim, wait=60)
    other = work.leases.claim()

    assert other is not None
    assert other.pack_id != claim.pack_id


def test_trials_whose_workers_keep_disappearing_are_suspected(work: Work) -> None:
    """A pack that is lost five times in a row is halved, and a single trial fails in the end."""
    job = work.accept(budget={"trials": 1})
    for _ in range(MAX_LOSSES * MAX_DEATHS):
        work.pack(0)
        expire_all(work)
        work.other.reap()
        with work.database.writing() as session:
            session.execute(update(Pack).values(not_before=None))
    (trial,) = work.trials()

    assert trial.state == TrialState.FAILED
    assert "5 times in a row" in (trial.reason or "")
    assert work.job(job).state == JobState.FAILED
    with work.database.reading() as session:
        states = session.scalars(select(col(Event.state)).where(col(Event.trial).is_(None))).all()
    assert states.count(JobState.FAILED) == 1


def test_a_job_goes_on_if_one_of_two_machines_cannot_run_it(work: Work) -> None:
    """Its pack is given back, and the other worker's trial is the job's best."""
    job = work.accept(budget={"trials": 2})
    able, unable = work.pack(1), work.pack(1, work.other)
    work.other.impossible(unable, "2 lanes take 9 GiB, more than there is")
    going = work.job(job).state
    work.run_trial(able, 0.9)

    assert going == JobState.RUNNING
    assert (work.job(job).error, work.job(job).best_trial) == (None, 0)


def test_a_job_fails_if_the_only_machine_cannot_run_it(work: Work) -> None:
    """It fails at once, and its error is the worker's reason."""
    job = work.accept(budget={"trials": 2})
    work.leases.impossible(work.pack(1), "2 lanes take 9 GiB, more than there is")

    assert (work.job(job).state, work.job(job).error) == (JobState.FAILED, "2 lanes take 9 GiB, more than there is")
