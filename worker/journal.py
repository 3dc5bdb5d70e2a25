"""The job's own counter: every change raises it in the transaction that makes the change.

The row of the job stays locked until that transaction ends, so the order of numbers is the order of commits on both
databases; a reader that has seen number n has seen everything before it.
"""

from typing import cast

from sqlalchemy import func, select, update
from sqlmodel import Session, col

from ml.records import TrialState
from worker.clock import now
from worker.errors import NotFound
from worker.tables import Event, Job, JobState, Pack, Trial


def clock(session: Session) -> float:
    """The present instant by the database."""
    return float(session.scalar(select(now())) or 0.0)


def lock_job(session: Session, job_id: str) -> Job:
    """The job, locked until the transaction ends; NotFound where there is none."""
    statement = select(Job).where(col(Job.id) == job_id).with_for_update().execution_options(populate_existing=True)
    job = session.scalar(statement)
    if job is None:
        raise NotFound("there is no such job; GET /jobs lists them")
    return job


def job_changed(session: Session, job: Job, state: JobState, detail: str | None = None, by: str | None = None) -> None:
    """Move a locked job to `state`, or leave it there, and note why and who did so."""
    job.state = state
    _note(session, job, None, state, detail, by)


def trial_changed(session: Session, job: Job, trial: Trial, by: str | None = None) -> None:
    """Note that a trial of a locked job has come to another state, and who brought it there."""
    trial.sequence = _note(session, job, trial.number, trial.state, trial.reason, by)


def trial_stamped(job: Job, trial: Trial) -> int:
    """Stamp a change of a trial of a locked job that is no transition; its number."""
    job.sequence += 1
    trial.sequence = job.sequence
    return job.sequence


def _note(session: Session, job: Job, trial: int | None, state: str, detail: str | None, by: str | None) -> int:
    job.sequence += 1
    event = Event(
        job_id=job.id, sequence=job.sequence, trial=trial, state=state, detail=detail, by=by, at=clock(session)
    )
    session.add(event)
    return job.sequence


def begin_trial(session: Session, job: Job, pack: Pack) -> Trial:
    """The next trial of a locked job, in a pack of it."""
    trial = Trial(
        job_id=job.id,
        number=job.reserved,
        pack_id=cast("int", pack.id),
        state=TrialState.RUNNING,
        created_at=clock(session),
    )
    job.reserved += 1
    session.add(trial)
    trial_changed(session, job, trial, pack.lease_owner)
    return trial


def account(session: Session, job: Job) -> None:
    """Bring the time that a locked job has had a pack leased up to date; called before and after leases change."""
    present, leased_until = clock(session), _leased_until(session, job)
    job.active_seconds = _active_seconds(job, present, leased_until)
    job.active_since = present if leased_until > present else None


def active_seconds(session: Session, job: Job) -> float:
    """Seconds that a job has had a pack leased, by now."""
    return _active_seconds(job, clock(session), _leased_until(session, job))


def _active_seconds(job: Job, present: float, leased_until: float) -> float:
    if job.active_since is None:
        return job.active_seconds
    # Where every lease ran out, as when the machine slept, the time since then does not count.
    return job.active_seconds + max(0.0, min(present, leased_until) - job.active_since)


def _leased_until(session: Session, job: Job) -> float:
    """When the last lease of a job's packs ends; long ago where there is none."""
    of_job = (col(Pack.job_id) == job.id, col(Pack.done).is_(False))
    return session.scalar(select(func.max(Pack.lease_expires_at)).where(*of_job)) or 0.0


def raise_epoch(session: Session, pack: Pack, owner: str, lease_seconds: float) -> None:
    """Give a pack to `owner`: whoever held it before can no longer write."""
    session.execute(
        update(Pack)
        .where(col(Pack.id) == pack.id)
        .values(lease_owner=owner, lease_epoch=Pack.lease_epoch + 1, lease_expires_at=now() + lease_seconds)
    )
    session.refresh(pack)
