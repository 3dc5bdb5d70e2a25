"""Leases: they decide which worker works on which pack.

A claim raises the pack's lease epoch. From then on a write that carries an older epoch is refused. All times are by the
database's clock.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import and_, func, or_, select
from sqlmodel import Session, col

from ml.records import Stop, TrialState
from worker.database.clock import clock, now
from worker.database.engine import Database
from worker.database.tables import PREDICTING, Job, JobState, Pack, PackPurpose, StopReason, Trial
from worker.errors import LeaseLost
from worker.ledger.files import delete_uploads
from worker.ledger.packs import divide, end_pack, end_running, new_pack, prediction_pack, running
from worker.ledger.run_off_start import give_up
from worker.ledger.settlement import HOPELESS, settle
from worker.ledger.transitions import (
    DISCARDED,
    begin_trial,
    lease,
    lease_change,
    lock_job,
    move_job,
    note_job,
    out_of_time,
    reasons,
)

MAX_DEATHS = 2  # trainers that may die on a trial alone before it counts as failed
MAX_LOSSES = 5  # leases of a pack that may run out in a row before one of its trials is suspected
# Why a job fails if the work of a pack without trials fails.
WITHOUT_TRIALS = {
    PackPurpose.PUBLISH: "the winner could not be published",
    PackPurpose.PREDICT: "the images could not be classified",
}
FIRST_WAIT, LONGEST_WAIT = 5.0, 300.0  # seconds until a pack that was lost again may be claimed; doubled each time


@dataclass(frozen=True)
class Claim:
    """A pack that this process may work on until another worker claims it."""

    pack_id: int
    job_id: str
    epoch: int
    purpose: PackPurpose


@dataclass(frozen=True)
class PackOrders:
    """Changes in how a worker must treat a pack that it holds."""

    stop: Stop | None = None  # why the pack must end now; None: it goes on
    cancelled: Collection[int] = ()  # numbers of its trials that were cancelled


def fence(session: Session, claim: Claim) -> tuple[Job, Pack]:
    """Return the job and the claimed pack, both locked until the transaction ends.

    Raises:
        LeaseLost: if the pack has ended, or another worker has claimed it since.
    """
    job = lock_job(session, claim.job_id)
    pack = session.scalar(
        select(Pack)
        .where(col(Pack.id) == claim.pack_id, col(Pack.lease_epoch) == claim.epoch, col(Pack.done).is_(False))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if pack is None:
        raise LeaseLost(f"pack {claim.pack_id} has ended, or another worker has claimed it since epoch {claim.epoch}")
    return job, pack


class Leases:
    """Claims, keeps and gives back packs for one owner."""

    def __init__(self, database: Database, owner: str, seconds: float) -> None:
        self.database = database
        self.owner = owner
        self.seconds = seconds

    def claim(self) -> Claim | None:
        """Claim a pack to work on; return None if there is no work.

        A pack that was begun and is unclaimed comes before a new one.
        """
        self.reap()
        # One transaction for each look: two transactions that lock rows of two jobs could wait for each other.
        for look in (self._waiting_pack, self._new_pack):
            with self.database.writing() as session:
                pack = look(session)
                if pack is not None:
                    return Claim(cast("int", pack.id), pack.job_id, pack.lease_epoch, PackPurpose(pack.purpose))
        return None

    def work_waits(self) -> bool:
        """Return whether any pack or job is waiting to be claimed."""
        waiting = select(col(Pack.id)).join(Job, col(Job.id) == Pack.job_id).where(*_WAITING, _UNPAUSED).limit(1)
        queued = select(col(Job.id)).where(col(Job.state) == JobState.QUEUED).limit(1)
        with self.database.reading() as session:
            return session.scalar(waiting) is not None or session.scalar(queued) is not None

    def renew(self, claim: Claim) -> bool:
        """Extend the lease of a pack; return False if the lease is lost."""
        with self.database.writing() as session:
            if (held := _still_held(session, claim)) is None:
                return False
            job, pack = held
            with lease_change(session, job):  # a lease that ran out while the machine slept must not count as worked
                pack.lease_expires_at = clock(session) + self.seconds
            return True

    def orders(self, claim: Claim) -> PackOrders:
        """Return whether and why the claimed pack must end now, and which of its trials to leave out."""
        with self.database.reading() as session:
            job, pack = session.get_one(Job, claim.job_id), session.get_one(Pack, claim.pack_id)
            if pack.done or pack.lease_epoch != claim.epoch:
                return PackOrders(Stop.CANCELLED)
            if job.state == JobState.PAUSED:
                return PackOrders(Stop.RELEASED)
            if claim.purpose == PackPurpose.TRAIN and out_of_time(session, job) and not _makes_good(session, pack):
                return PackOrders(Stop.SECONDS)
            cancelled = (col(Trial.pack_id) == pack.id, col(Trial.state) == TrialState.CANCELLED)
            return PackOrders(None, set(session.scalars(select(col(Trial.number)).where(*cancelled))))

    def release(self, claim: Claim, wait: float = 0.0) -> None:
        """Give a pack back unfinished; any worker may claim it after `wait` seconds.

        If the lease of the claim is lost, this method and the next three change nothing.
        """
        with self.database.writing() as session:
            if (held := _still_held(session, claim)) is None:
                return
            job, pack = held
            _let_go(session, job, pack)
            pack.not_before = clock(session) + wait if wait else None

    def hold(self, claim: Claim, why: str) -> None:
        """Give a pack back and pause its job, because the store is full."""
        with self.database.writing() as session:
            if (held := _still_held(session, claim)) is None:
                return
            job, pack = held
            _let_go(session, job, pack)
            if JobState(job.state) in (JobState.RUNNING, JobState.STOPPING):
                move_job(session, job, JobState.PAUSED, why, self.owner)

    def died(self, claim: Claim, how: str) -> None:
        """Give back a pack on which a trainer died.

        One of several trials may be the cause. The pack is halved after each death, until that trial is alone. A trial
        fails once MAX_DEATHS trainers have died on it alone.
        """
        with self.database.writing() as session:
            if (held := _still_held(session, claim)) is None:
                return
            job, pack = held
            _let_go(session, job, pack)
            self._suspect(session, job, pack, how)

    def impossible(self, claim: Claim, why: str) -> None:
        """End a job whose pack cannot be begun on this worker, such as for lack of memory.

        A job that has a trial to publish, or other open packs, goes on: another worker may be able to train it. Its
        pack then counts as one on which a trainer died.
        """
        with self.database.writing() as session:
            if (held := _still_held(session, claim)) is None:
                return
            job, pack = held
            if job.best_trial is not None or _has_others(session, pack):
                _let_go(session, job, pack)
                self._suspect(session, job, pack, why)
                return
            job.error, job.stop_reason = why, StopReason.FAILURES
            self._end(session, job, pack, TrialState.FAILED, why)

    def close(self, claim: Claim) -> None:
        """End a pack whose work is done, and cancel the trials that still run in it.

        Raises:
            LeaseLost: if another worker has claimed it.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            self._end(session, job, pack, TrialState.CANCELLED, "stopped with its pack")

    def reap(self) -> int:
        """Take back all packs whose lease has run out, of any worker; return how many there were.

        Any process may call this at any time. A pack is taken back once, and its former owner can no longer write.
        """
        reaped = 0
        for pack_id, job_id in self._expired():
            with self.database.writing() as session:
                reaped += self._reap(session, pack_id, job_id)
        return reaped

    def _expired(self) -> list[tuple[int, str]]:
        with self.database.reading() as session:
            rows = session.execute(select(col(Pack.id), col(Pack.job_id)).where(*_EXPIRED)).all()
            return [(cast("int", pack_id), job_id) for pack_id, job_id in rows]

    def _reap(self, session: Session, pack_id: int, job_id: str) -> bool:
        job = lock_job(session, job_id)
        pack = session.scalar(select(Pack).where(col(Pack.id) == pack_id, *_EXPIRED).with_for_update(skip_locked=True))
        if pack is None:
            return False
        lost = f"pack {pack.id} was lost: its worker {pack.lease_owner} did not renew its lease"
        pack.lease_epoch += 1
        pack.lost_leases += 1
        _let_go(session, job, pack)
        note_job(session, job, lost, self.owner)  # first, as the next lines may end the job
        if pack.lost_leases >= MAX_LOSSES:
            self._suspect(session, job, pack, f"{lost}, {pack.lost_leases} times in a row")
        elif pack.lost_leases > 1:
            pack.not_before = clock(session) + min(LONGEST_WAIT, FIRST_WAIT * 2 ** (pack.lost_leases - 2))
        return True

    def _suspect(self, session: Session, job: Job, pack: Pack, how: str) -> None:
        """Halve a pack of several trials to find the one that ends its workers; fail a trial that is alone."""
        trials = running(session, pack)
        pack.lost_leases = 0
        pack.deaths += len(trials) < 2
        if len(trials) > 1:
            moved = trials[len(trials) // 2 :]
            pack.lanes, pack.parted = len(trials) - len(moved), True
            divide(session, pack, [moved])
        elif pack.deaths >= MAX_DEATHS:
            give_up(session, pack, how)
            if (what := WITHOUT_TRIALS.get(PackPurpose(pack.purpose))) is not None:
                job.error = f"{what}: {how}"
            delete_uploads(session, job)
            self._end(session, job, pack, TrialState.FAILED, how)

    def _end(self, session: Session, job: Job, pack: Pack, state: TrialState, why: str) -> None:
        """End a pack, and its running trials in the given state."""
        with lease_change(session, job):
            end_running(session, job, pack, state, why, self.owner)
            end_pack(session, pack)
        settle(session, job, self.owner)

    def _waiting_pack(self, session: Session) -> Pack | None:
        """Claim for this owner a pack that was begun and is unclaimed; return None if there is none."""
        job = session.scalar(
            select(Job)
            .join(Pack, col(Pack.job_id) == Job.id)
            .where(*_WAITING, _UNPAUSED)
            .order_by(col(Pack.id))
            .limit(1)
            .with_for_update(of=Job, skip_locked=True)
            .execution_options(populate_existing=True)
        )
        if job is None:
            return None
        pack = session.scalar(
            select(Pack)
            .where(*_WAITING, col(Pack.job_id) == job.id)
            .order_by(col(Pack.id))
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        return None if pack is None else self._taken(session, job, pack)

    def _new_pack(self, session: Session) -> Pack | None:
        """Claim a new pack of the job that is next; return None if no job may begin one."""
        job = session.scalar(_next_job())
        if job is None:
            return None
        if job.predicts:
            return self._taken(session, job, prediction_pack(session, job))
        pack = new_pack(session, job, job.reserved)
        taken = self._taken(session, job, pack)
        begin_trial(session, job, pack, self.owner)
        return taken

    def _taken(self, session: Session, job: Job, pack: Pack) -> Pack:
        if job.state == JobState.QUEUED:
            job.started_at = job.started_at or clock(session)
            move_job(session, job, JobState.RUNNING, None, self.owner)
        with lease_change(session, job):
            lease(session, pack, self.owner, self.seconds)
        return pack


# Conditions on packs: the lease has run out; the pack is waiting to be claimed.
_EXPIRED = (col(Pack.done).is_(False), col(Pack.lease_expires_at) < now())
_WAITING = (
    col(Pack.done).is_(False),
    col(Pack.lease_expires_at).is_(None),
    or_(col(Pack.not_before).is_(None), col(Pack.not_before) < now()),
)
_UNPAUSED = col(Job.state) != JobState.PAUSED


def _still_held(session: Session, claim: Claim) -> tuple[Job, Pack] | None:
    """Return the job and the claimed pack, both locked; None if the lease is lost."""
    try:
        return fence(session, claim)
    except LeaseLost:
        return None


def _let_go(session: Session, job: Job, pack: Pack) -> None:
    """Make a pack unclaimed."""
    with lease_change(session, job):
        pack.lease_owner = pack.lease_expires_at = None


def _has_others(session: Session, pack: Pack) -> bool:
    """Return whether the job has other open packs."""
    others = (col(Pack.job_id) == pack.job_id, col(Pack.id) != pack.id, col(Pack.done).is_(False))
    return session.scalar(select(col(Pack.id)).where(*others).limit(1)) is not None


def _makes_good(session: Session, pack: Pack) -> bool:
    """Return whether a pack trains a trial again because its checkpoint was damaged.

    Such a pack may exceed the job's seconds, which were spent on the trial before.
    """
    return any(reasons(session, trial)[:1] == [DISCARDED] for trial in running(session, pack))


def _next_job() -> Any:
    """Return a query for the next job that may begin a trial or classify images.

    It is the job with the fewest open packs, so that no job waits until another has ended.
    """
    busy = (
        select(func.count())
        .select_from(Pack)
        .where(col(Pack.job_id) == Job.id, col(Pack.done).is_(False))
        .correlate(Job)
        .scalar_subquery()
    )
    elapsed = Job.active_seconds + func.coalesce(now() - col(Job.active_since), 0.0)
    begins_trials = and_(
        col(Job.state).in_([JobState.QUEUED, JobState.RUNNING]),
        col(Job.reserved) < col(Job.trial_limit),
        or_(col(Job.seconds_limit).is_(None), elapsed < col(Job.seconds_limit)),
        or_(col(Job.best_trial).is_not(None), and_(col(Job.failures) < HOPELESS, col(Job.error).is_(None))),
    )
    return (
        select(Job)
        .where(or_(begins_trials, and_(col(Job.kind).in_(PREDICTING), col(Job.state) == JobState.QUEUED)))
        .order_by(busy, col(Job.created_at), col(Job.id))
        .limit(1)
        .with_for_update(of=Job)
        .execution_options(populate_existing=True)
    )
