"""Transitions: every change of a job's or trial's state, and the event that records it.

Each change raises the job's counter, its sequence, in the same transaction. The job's row stays locked until that
transaction ends, so numbers are in the order of the commits on both databases. A reader that has seen number n has seen
all changes before it. No other module changes a state.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from sqlalchemy import func, select, update
from sqlmodel import Session, col

from ml.records import TrialState
from worker.database.clock import clock, now
from worker.database.tables import Event, Job, JobState, Opening, Pack, PackPurpose, Trial
from worker.errors import Fact, NotFound

REQUEST = "request"  # the author of a transition that a client asked for
DISCARDED = "trained again, as its checkpoint was damaged"  # why a trial begins again without a request

JOB_MOVES: dict[JobState, set[JobState]] = {
    JobState.QUEUED: {
        JobState.RUNNING,
        JobState.PAUSED,
        JobState.STOPPING,
        JobState.COMPLETED,  # of a later run whose budget was lowered again before it began
        JobState.FAILED,
        JobState.CANCELLED,
    },
    JobState.RUNNING: {
        JobState.PAUSED,
        JobState.STOPPING,
        JobState.COMPLETED,  # of a later run that found no better winner
        JobState.FAILED,
        JobState.CANCELLED,
    },
    JobState.PAUSED: {JobState.QUEUED, JobState.RUNNING, JobState.STOPPING, JobState.CANCELLED},
    JobState.STOPPING: {JobState.RUNNING, JobState.PAUSED, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED},
    JobState.COMPLETED: {JobState.QUEUED},  # the next run: its budget was raised, or one of its trials is retried
    JobState.FAILED: {JobState.QUEUED},
    JobState.CANCELLED: set(),
}
TRIAL_ENDS = set(TrialState) - {TrialState.RUNNING}


def lock_job(session: Session, job_id: str) -> Job:
    """Return the job, locked until the transaction ends.

    Every transaction locks the job before the job's other rows, so that no two transactions wait for each other.

    Raises:
        NotFound: if there is no such job.
    """
    statement = select(Job).where(col(Job.id) == job_id).with_for_update().execution_options(populate_existing=True)
    job = session.scalar(statement)
    if job is None:
        raise NotFound("there is no such job", Fact.NO_JOB)
    return job


def move_job(session: Session, job: Job, state: JobState, detail: str | None = None, by: str | None = None) -> None:
    """Move a locked job to another state, and record the reason and the author."""
    if state not in JOB_MOVES[JobState(job.state)]:
        raise RuntimeError(f"a job cannot go from {job.state} to {state}; report this")
    job.state = state
    _note(session, job, None, state, detail, by)


def note_job(session: Session, job: Job, detail: str | None, by: str | None) -> None:
    """Add an entry to a locked job's history without a change of state."""
    _note(session, job, None, job.state, detail, by)


def end_trial(session: Session, job: Job, trial: Trial, state: TrialState, reason: str, by: str | None) -> None:
    """End a running trial of a locked job."""
    if trial.state != TrialState.RUNNING or state not in TRIAL_ENDS:
        raise RuntimeError(f"a trial cannot go from {trial.state} to {state}; report this")
    trial.state, trial.reason, trial.finished_at = state, reason, clock(session)
    job.failures += state == TrialState.FAILED
    trial.sequence = _note(session, job, trial.number, state, reason, by)


def begin_trial(session: Session, job: Job, pack: Pack, by: str | None) -> Trial:
    """Begin the next trial of a locked job in one of its packs."""
    trial = Trial(
        job_id=job.id,
        number=job.reserved,
        pack_id=cast("int", pack.id),
        state=TrialState.RUNNING,
        created_at=clock(session),
    )
    job.reserved += 1
    session.add(trial)
    trial.sequence = _note(session, job, trial.number, TrialState.RUNNING, None, by)
    return trial


def begin_again(session: Session, job: Job, trial: Trial, pack: Pack, detail: str, by: str) -> None:
    """Let an ended trial of a locked job run again, in another pack."""
    job.failures -= trial.state == TrialState.FAILED
    trial.state, trial.reason, trial.finished_at = TrialState.RUNNING, None, None
    trial.pack_id = cast("int", pack.id)
    trial.sequence = _note(session, job, trial.number, TrialState.RUNNING, detail, by)


def reasons(session: Session, trial: Trial) -> list[str | None]:
    """Return the reasons of a trial's transitions, the latest first."""
    of_trial = (col(Event.job_id) == trial.job_id, col(Event.trial) == trial.number)
    return list(session.scalars(select(col(Event.detail)).where(*of_trial).order_by(col(Event.sequence).desc())))


def stamp(job: Job, trial: Trial) -> int:
    """Give the next change number to a trial whose state stays the same, and return it."""
    job.sequence += 1
    trial.sequence = job.sequence
    return job.sequence


def note_opening(session: Session, job: Job, split: str, version_id: int | None = None) -> None:
    """Note that a locked job is about to look at test images; once for each run of the job.

    Args:
        session: the session in whose transaction the job is locked.
        job: the job that opens the test images of its data set.
        split: the split, which decides which images are the test images.
        version_id: the version that is tested, if it exists already.
    """
    if opening_of(session, job) is None:
        opening = Opening(
            dataset_sha256=job.dataset_sha256,
            split=split,
            job_id=job.id,
            run=job.run,
            version_id=version_id,
            at=clock(session),
        )
        session.add(opening)


def opening_of(session: Session, job: Job) -> Opening | None:
    """Return the opening of test images in a job's present run; None if it has not looked at them."""
    return session.scalar(select(Opening).where(col(Opening.job_id) == job.id, col(Opening.run) == job.run))


def _note(session: Session, job: Job, trial: int | None, state: str, detail: str | None, by: str | None) -> int:
    job.sequence += 1
    event = Event(
        job_id=job.id, sequence=job.sequence, trial=trial, state=state, detail=detail, by=by, at=clock(session)
    )
    session.add(event)
    session.flush()
    return job.sequence


@contextmanager
def lease_change(session: Session, job: Job) -> Iterator[None]:
    """Keep a locked job's active seconds right while leases of its packs begin or end inside the block."""
    _account(session, job)
    yield
    session.flush()
    _account(session, job)


def _account(session: Session, job: Job) -> None:
    """Add the time since the last call to a locked job's active seconds."""
    present, leased_until = clock(session), _leased_until(session, job)
    job.active_seconds = _active_seconds(job, present, leased_until)
    job.active_since = present if leased_until > present else None


def active_seconds(session: Session, job: Job) -> float:
    """Return the seconds in which a job has had a pack leased so far."""
    return _active_seconds(job, clock(session), _leased_until(session, job))


def out_of_time(session: Session, job: Job) -> bool:
    """Return whether a job has used up its seconds."""
    return job.seconds_limit is not None and active_seconds(session, job) >= job.seconds_limit


def _active_seconds(job: Job, present: float, leased_until: float) -> float:
    if job.active_since is None:
        return job.active_seconds
    # Time after the last lease ran out does not count, such as while the machine slept.
    return job.active_seconds + max(0.0, min(present, leased_until) - job.active_since)


def _leased_until(session: Session, job: Job) -> float:
    """Return when the last lease of a job's packs ends; 0 if none is leased.

    The publication of the winner takes none of the job's seconds: no trial runs meanwhile. By rules 1 it did.
    """
    of_job = [col(Pack.job_id) == job.id, col(Pack.done).is_(False)]
    if job.rules > 1:
        of_job.append(col(Pack.purpose) != PackPurpose.PUBLISH)
    return session.scalar(select(func.max(Pack.lease_expires_at)).where(*of_job)) or 0.0


def lease(session: Session, pack: Pack, owner: str, lease_seconds: float) -> None:
    """Lease a pack to `owner`; its former owner can no longer write."""
    session.execute(
        update(Pack)
        .where(col(Pack.id) == pack.id)
        .values(lease_owner=owner, lease_epoch=Pack.lease_epoch + 1, lease_expires_at=now() + lease_seconds)
    )
    session.refresh(pack)
