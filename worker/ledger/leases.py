"""Leases: which worker works on which pack.

A claim raises the pack's lease epoch; from then on a write that carries an older epoch is refused. Nothing here trusts
a clock but the database's.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import and_, func, or_, select
from sqlmodel import Session, col

from ml.records import Stop, TrialState
from worker.database.clock import now
from worker.database.engine import Database
from worker.database.tables import PREDICTING, Job, JobState, Pack, PackPurpose, StopReason, Trial
from worker.errors import LeaseLost
from worker.ledger.packs import divide, drop, end_pack, end_running, new_pack, prediction_pack, running
from worker.ledger.retention import uploads
from worker.ledger.run_off_start import give_up
from worker.ledger.settlement import HOPELESS, settle
from worker.ledger.transitions import (
    DISCARDED,
    account,
    begin_trial,
    clock,
    lease,
    lock_job,
    move_job,
    note_job,
    out_of_time,
    reasons,
)

MAX_DEATHS = 2  # trainers that may die on a trial alone before it counts as failed
MAX_LOSSES = 5  # leases of a pack that may run out in a row before its trials are suspected
# What could not be done, where the work of a pack that has no trials fails; the job fails with it.
WITHOUT_TRIALS = {
    PackPurpose.PUBLISH: "the winner could not be published",
    PackPurpose.PREDICT: "the images could not be classified",
}
FIRST_WAIT, LONGEST_WAIT = 5.0, 300.0  # seconds until a pack that was lost again may be claimed; doubled each time


@dataclass(frozen=True)
class Claim:
    """A pack that this process may work on while nobody else claims it."""

    pack_id: int
    job_id: str
    epoch: int
    purpose: PackPurpose


@dataclass(frozen=True)
class PackOrders:
    """What a worker is to do about a pack that it holds."""

    stop: Stop | None = None
    cancelled: Collection[int] = ()  # trials, by number, that somebody cancelled


def fence(session: Session, claim: Claim) -> tuple[Job, Pack]:
    """The job and the claimed pack, locked until the transaction ends; LeaseLost where the claim is no longer good."""
    job = lock_job(session, claim.job_id)
    pack = session.scalar(
        select(Pack)
        .where(col(Pack.id) == claim.pack_id, col(Pack.lease_epoch) == claim.epoch, col(Pack.done).is_(False))
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    if pack is None:
        raise LeaseLost(f"pack {claim.pack_id} has been ended or claimed by another since epoch {claim.epoch}")
    return job, pack


class Leases:
    """Claims, keeps and gives back packs for one owner."""

    def __init__(self, database: Database, owner: str, seconds: float) -> None:
        self.database = database
        self.owner = owner
        self.seconds = seconds

    def claim(self) -> Claim | None:
        """A pack to work on: one that was begun and lost before a new one; None where there is no work."""
        self.reap()
        # A transaction each: one that locks the rows of two jobs could wait for another that does.
        for look in (self._waiting_pack, self._new_pack):
            with self.database.writing() as session:
                pack = look(session)
                if pack is not None:
                    return Claim(cast("int", pack.id), pack.job_id, pack.lease_epoch, PackPurpose(pack.purpose))
        return None

    def work_waits(self) -> bool:
        """Whether there is a pack that nobody works on, or a job that nobody has begun."""
        waiting = select(col(Pack.id)).join(Job, col(Job.id) == Pack.job_id).where(*_WAITING, _UNPAUSED).limit(1)
        queued = select(col(Job.id)).where(col(Job.state) == JobState.QUEUED).limit(1)
        with self.database.reading() as session:
            return session.scalar(waiting) is not None or session.scalar(queued) is not None

    def renew(self, claim: Claim) -> bool:
        """Keep a pack for another lease; False where it is lost."""
        with self.database.writing() as session:
            if (held := _still_held(session, claim)) is None:
                return False
            job, pack = held
            account(session, job)  # a lease that ran out while the machine slept must not count as worked
            pack.lease_expires_at = clock(session) + self.seconds
            session.flush()
            account(session, job)
            return True

    def orders(self, claim: Claim) -> PackOrders:
        """Whether the claimed pack must end now, and why; which of its trials are to be left out."""
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
        """Give a pack back unfinished, for any worker to take up after so many seconds.

        Nothing happens where it is lost.
        """
        with self.database.writing() as session:
            if (held := _still_held(session, claim)) is None:
                return
            job, pack = held
            _let_go(session, job, pack)
            pack.not_before = clock(session) + wait if wait else None

    def hold(self, claim: Claim, why: str) -> None:
        """Give a pack back and pause its job: its work cannot be written down until somebody sets that right."""
        with self.database.writing() as session:
            if (held := _still_held(session, claim)) is None:
                return
            job, pack = held
            _let_go(session, job, pack)
            if JobState(job.state) in (JobState.RUNNING, JobState.STOPPING):
                move_job(session, job, JobState.PAUSED, why, self.owner)

    def died(self, claim: Claim, how: str) -> list[str]:
        """Give back a pack on which a trainer died; the paths of files that no row needs any more.

        Of several trials nobody knows which is to blame: they go on in halves, until the guilty one is alone. A trial
        on which MAX_DEATHS trainers died alone has failed.
        """
        with self.database.writing() as session:
            if (held := _still_held(session, claim)) is None:
                return []
            job, pack = held
            _let_go(session, job, pack)
            return self._suspect(session, job, pack, how)

    def impossible(self, claim: Claim, why: str) -> list[str]:
        """End a job of which no pack can be begun; the paths of files that no row needs any more.

        One that has a trial to publish, or other packs, which may be at work where it is possible, is not ended: its
        pack counts as one on which a trainer died.
        """
        with self.database.writing() as session:
            if (held := _still_held(session, claim)) is None:
                return []
            job, pack = held
            if job.best_trial is not None or _has_others(session, pack):
                _let_go(session, job, pack)
                return self._suspect(session, job, pack, why)
            job.error, job.stop_reason = why, StopReason.FAILURES
            return self._ended(session, job, pack, TrialState.FAILED, why)

    def close(self, claim: Claim) -> list[str]:
        """End a pack whose work is done; the paths of files that no row needs any more.

        LeaseLost where another has claimed it. A trial that still runs in it was stopped before it could say so.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            return self._ended(session, job, pack, TrialState.CANCELLED, "stopped before it could end by itself")

    def reap(self) -> int:
        """Take back packs whose lease has run out, here or anywhere; how many there were.

        Any process may do so at any time: a pack is taken back once, and its owner can write no more.
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
        lost = f"pack {pack.id} was lost with its worker, {pack.lease_owner}"
        pack.lease_epoch += 1
        pack.lost_leases += 1
        _let_go(session, job, pack)
        note_job(session, job, lost, self.owner)  # before it may end
        if pack.lost_leases >= MAX_LOSSES:
            self._suspect(session, job, pack, f"{lost}, {pack.lost_leases} times in a row")
        elif pack.lost_leases > 1:
            pack.not_before = clock(session) + min(LONGEST_WAIT, FIRST_WAIT * 2 ** (pack.lost_leases - 2))
        return True

    def _suspect(self, session: Session, job: Job, pack: Pack, how: str) -> list[str]:
        """Find out which trial of a pack ends whoever works on it."""
        trials = running(session, pack)
        unneeded: list[str] = []
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
            unneeded = drop(session, uploads(session, job)) + self._ended(session, job, pack, TrialState.FAILED, how)
        return unneeded

    def _ended(self, session: Session, job: Job, pack: Pack, state: TrialState, why: str) -> list[str]:
        """End a pack, and in that state what of it still runs; the paths of files that no row needs any more."""
        account(session, job)
        end_running(session, job, pack, state, why, self.owner)
        unneeded = end_pack(session, pack)
        session.flush()
        account(session, job)
        settle(session, job, self.owner)
        return unneeded

    def _waiting_pack(self, session: Session) -> Pack | None:
        """A pack that was begun and is nobody's, now this owner's."""
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
        account(session, job)
        lease(session, pack, self.owner, self.seconds)
        account(session, job)
        return pack


# Of packs: those whose lease ran out, and those that wait for somebody to claim them.
_EXPIRED = (col(Pack.done).is_(False), col(Pack.lease_expires_at) < now())
_WAITING = (
    col(Pack.done).is_(False),
    col(Pack.lease_expires_at).is_(None),
    or_(col(Pack.not_before).is_(None), col(Pack.not_before) < now()),
)
_UNPAUSED = col(Job.state) != JobState.PAUSED


def _still_held(session: Session, claim: Claim) -> tuple[Job, Pack] | None:
    """The job and the claimed pack as `fence` gives them; None where the claim is no longer good."""
    try:
        return fence(session, claim)
    except LeaseLost:
        return None


def _let_go(session: Session, job: Job, pack: Pack) -> None:
    """Make a pack nobody's."""
    account(session, job)
    pack.lease_owner = pack.lease_expires_at = None
    session.flush()
    account(session, job)


def _has_others(session: Session, pack: Pack) -> bool:
    """Whether its job has other packs that are open."""
    others = (col(Pack.job_id) == pack.job_id, col(Pack.id) != pack.id, col(Pack.done).is_(False))
    return session.scalar(select(col(Pack.id)).where(*others).limit(1)) is not None


def _makes_good(session: Session, pack: Pack) -> bool:
    """Whether a pack trains a trial again whose checkpoint was damaged: its job's seconds were spent on it before."""
    return any(reasons(session, trial)[:1] == [DISCARDED] for trial in running(session, pack))


def _next_job() -> Any:
    """Of the jobs that may begin a trial or classify the one with the fewest packs at work: none waits for another."""
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
