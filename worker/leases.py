"""Leases: which worker works on which pack.

A claim raises the pack's lease epoch; from then on a write that carries an older epoch is refused. Nothing here trusts
a clock but the database's.
"""

from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import func, or_, select
from sqlmodel import Session, col

from ml.records import Stop, TrialState
from ml.seeds import Purpose as Seed
from ml.seeds import derive
from worker.clock import now
from worker.db import Database
from worker.errors import LeaseLost
from worker.journal import (
    account,
    active_seconds,
    begin_trial,
    clock,
    job_changed,
    lock_job,
    raise_epoch,
    trial_changed,
)
from worker.settlement import HOPELESS, settle
from worker.tables import Job, JobState, Pack, Purpose, StopReason, Trial

MAX_DEATHS = 2  # trainers that may die on a trial alone before it counts as failed


@dataclass(frozen=True)
class Claim:
    """A pack that this process may work on while nobody else claims it."""

    pack_id: int
    job_id: str
    epoch: int
    purpose: Purpose


def fence(session: Session, claim: Claim) -> Pack:
    """The claimed pack, locked until the transaction ends; LeaseLost where another has claimed it since."""
    statement = (
        select(Pack)
        .where(col(Pack.id) == claim.pack_id, col(Pack.lease_epoch) == claim.epoch, col(Pack.done).is_(False))
        .with_for_update()
    )
    pack = session.scalar(statement)
    if pack is None:
        raise LeaseLost(f"pack {claim.pack_id} has been claimed by another worker since epoch {claim.epoch}")
    return pack


class Leases:
    """Claims, keeps and gives back packs for one owner."""

    def __init__(self, database: Database, owner: str, seconds: float) -> None:
        self.database = database
        self.owner = owner
        self.seconds = seconds

    def claim(self) -> Claim | None:
        """A pack to work on: one that was begun and lost before a new one; None where there is no work."""
        with self.database.writing() as session:
            pack = self._lost_pack(session) or self._new_pack(session)
            if pack is None:
                return None
            return Claim(cast("int", pack.id), pack.job_id, pack.lease_epoch, Purpose(pack.purpose))

    def renew(self, claim: Claim) -> bool:
        """Keep a pack for another lease; False where it is lost."""
        with self.database.writing() as session:
            try:
                pack = fence(session, claim)
            except LeaseLost:
                return False
            job = lock_job(session, claim.job_id)
            account(session, job)  # a lease that ran out while the machine slept must not count as worked
            pack.lease_expires_at = clock(session) + self.seconds
            session.flush()
            account(session, job)
            return True

    def stop_asked(self, claim: Claim) -> Stop | None:
        """Whether the claimed pack must end now, and why."""
        with self.database.reading() as session:
            job = session.get_one(Job, claim.job_id)
            if job.stop_reason == StopReason.CANCELLED:
                return Stop.CANCELLED
            spent = job.seconds_limit is not None and active_seconds(session, job) >= job.seconds_limit
            return Stop.SECONDS if spent and claim.purpose == Purpose.TRAIN else None

    def release(self, claim: Claim) -> None:
        """Give a pack back unfinished, for any worker to take up; nothing happens where it is lost."""
        self._give_back(claim, died=None)

    def died(self, claim: Claim, how: str) -> None:
        """Give back a pack on which a trainer died.

        Of several trials nobody knows which is to blame: they go on in halves, until the guilty one is alone. A trial
        on which MAX_DEATHS trainers died alone has failed.
        """
        self._give_back(claim, died=how)

    def close(self, claim: Claim) -> None:
        """End a pack whose work is done; LeaseLost where another has claimed it.

        A trial that still runs in it was stopped before it could say so.
        """
        with self.database.writing() as session:
            pack = fence(session, claim)
            job = lock_job(session, claim.job_id)
            account(session, job)
            _end_trials(session, job, pack, TrialState.CANCELLED, "stopped before it could end by itself")
            account(session, job)
            settle(session, job)

    def _give_back(self, claim: Claim, died: str | None) -> None:
        with self.database.writing() as session:
            try:
                pack = fence(session, claim)
            except LeaseLost:
                return
            job = lock_job(session, claim.job_id)
            account(session, job)
            pack.lease_owner = pack.lease_expires_at = None
            running = _running(session, pack)
            pack.deaths += died is not None and len(running) < 2
            if job.stop_reason == StopReason.CANCELLED:
                _end_trials(session, job, pack, TrialState.CANCELLED, "cancelled")
            elif died is not None and pack.deaths >= MAX_DEATHS:
                _end_trials(session, job, pack, TrialState.FAILED, died)
                if pack.purpose == Purpose.PUBLISH:
                    job.error = f"the winner could not be published: {died}"
            elif died is not None and len(running) > 1:
                _halve(session, job, pack, running)
            session.flush()
            account(session, job)
            settle(session, job)

    def _lost_pack(self, session: Session) -> Pack | None:
        pack = session.scalar(
            select(Pack)
            .where(
                col(Pack.done).is_(False),
                or_(col(Pack.lease_expires_at).is_(None), col(Pack.lease_expires_at) < now()),
            )
            .order_by(col(Pack.id))
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        if pack is None:
            return None
        job = lock_job(session, pack.job_id)
        account(session, job)
        raise_epoch(session, pack, self.owner, self.seconds)
        account(session, job)
        return pack

    def _new_pack(self, session: Session) -> Pack | None:
        job = session.scalar(_next_job())
        if job is None:
            return None
        if job.state == JobState.QUEUED:
            job.started_at = clock(session)
            job_changed(session, job, JobState.RUNNING)
        stream_seed = derive(int(job.spec["seed"]), Seed.STREAM, job.reserved)
        pack = Pack(job_id=job.id, purpose=Purpose.TRAIN, key="", lanes=1, stream_seed=stream_seed)
        session.add(pack)
        session.flush()
        begin_trial(session, job, pack)
        account(session, job)
        raise_epoch(session, pack, self.owner, self.seconds)
        account(session, job)
        return pack


def _running(session: Session, pack: Pack) -> list[Trial]:
    """The trials of a pack that have not ended, in the order of their numbers."""
    of_pack = (col(Trial.pack_id) == pack.id, col(Trial.state) == TrialState.RUNNING)
    return list(session.scalars(select(Trial).where(*of_pack).order_by(col(Trial.number))))


def _halve(session: Session, job: Job, pack: Pack, running: list[Trial]) -> None:
    """Move the second half of a pack's running trials to a pack of their own; neither has more lanes than its half."""
    moved = running[len(running) // 2 :]
    pack.lanes = len(running) - len(moved)
    stream_seed = derive(int(job.spec["seed"]), Seed.STREAM, moved[0].number)
    other = Pack(job_id=job.id, purpose=pack.purpose, key=pack.key, lanes=len(moved), stream_seed=stream_seed)
    session.add(other)
    session.flush()
    for trial in moved:
        trial.pack_id = cast("int", other.id)


def _end_trials(session: Session, job: Job, pack: Pack, state: TrialState, reason: str) -> None:
    """End a pack together with whatever still ran in it."""
    for trial in _running(session, pack):
        trial.state, trial.reason, trial.finished_at = state, reason, clock(session)
        job.failures += state == TrialState.FAILED
        trial_changed(session, job, trial, pack.lease_owner)
    end_pack(session, pack)


def end_pack(session: Session, pack: Pack) -> None:
    """Take a locked pack out of work."""
    pack.done = True
    pack.lease_owner = pack.lease_expires_at = None
    session.flush()


def _next_job() -> Any:
    """Of the jobs that may begin a trial the one with the fewest packs at work, so that none waits for another."""
    busy = (
        select(func.count())
        .select_from(Pack)
        .where(col(Pack.job_id) == Job.id, col(Pack.done).is_(False))
        .correlate(Job)
        .scalar_subquery()
    )
    elapsed = Job.active_seconds + func.coalesce(now() - col(Job.active_since), 0.0)
    return (
        select(Job)
        .where(
            col(Job.state).in_([JobState.QUEUED, JobState.RUNNING]),
            col(Job.stop_reason).is_(None),
            col(Job.reserved) < col(Job.trial_limit),
            or_(col(Job.seconds_limit).is_(None), elapsed < col(Job.seconds_limit)),
            or_(col(Job.best_trial).is_not(None), col(Job.failures) < HOPELESS),
        )
        .order_by(busy, col(Job.created_at), col(Job.id))
        .limit(1)
        .with_for_update(of=Job)
        .execution_options(populate_existing=True)
    )
