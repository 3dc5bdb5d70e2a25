"""The journal: every transition of jobs and trials, under the job's own counter.

Each change raises the counter in the transaction that makes it. The row of the job stays locked until that transaction
ends, so the order of numbers is the order of commits on both databases; a reader that has seen number n has seen
everything before it. Nobody else changes a state.
"""

from typing import cast

from sqlalchemy import func, select, update
from sqlmodel import Session, col

from ml.records import TrialState
from worker.database.clock import now
from worker.database.tables import Event, Job, JobState, Pack, Trial
from worker.errors import Fact, NotFound

REQUEST = "request"  # who made a transition, where it was somebody who asked over HTTP
DISCARDED = "trained again, as its checkpoint was damaged"  # why a trial begins again, where nobody asked for it

JOB_MOVES: dict[JobState, set[JobState]] = {
    JobState.QUEUED: {
        JobState.RUNNING,
        JobState.PAUSED,
        JobState.STOPPING,
        JobState.COMPLETED,  # of a later run that was called off before it began
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
    JobState.COMPLETED: {JobState.QUEUED},  # its budget was raised, or a trial of it is tried again: another run
    JobState.FAILED: {JobState.QUEUED},
    JobState.CANCELLED: set(),
}
TRIAL_ENDS = set(TrialState) - {TrialState.RUNNING}


def clock(session: Session) -> float:
    """The present instant by the database."""
    return float(session.scalar(select(now())) or 0.0)


def lock_job(session: Session, job_id: str) -> Job:
    """The job, locked until the transaction ends; NotFound where there is none.

    Whoever locks rows of a job locks the job first, so that no two transactions wait for each other.
    """
    statement = select(Job).where(col(Job.id) == job_id).with_for_update().execution_options(populate_existing=True)
    job = session.scalar(statement)
    if job is None:
        raise NotFound("there is no such job", Fact.NO_JOB)
    return job


def move_job(session: Session, job: Job, state: JobState, detail: str | None = None, by: str | None = None) -> None:
    """Move a locked job to another state, and note why and who did so."""
    if state not in JOB_MOVES[JobState(job.state)]:
        raise RuntimeError(f"a job cannot go from {job.state} to {state}; report this")
    job.state = state
    _note(session, job, None, state, detail, by)


def note_job(session: Session, job: Job, detail: str | None, by: str | None) -> None:
    """Note something about a locked job that is worth knowing and changes no state."""
    _note(session, job, None, job.state, detail, by)


def end_trial(session: Session, job: Job, trial: Trial, state: TrialState, reason: str, by: str | None) -> None:
    """End a running trial of a locked job."""
    if trial.state != TrialState.RUNNING or state not in TRIAL_ENDS:
        raise RuntimeError(f"a trial cannot go from {trial.state} to {state}; report this")
    trial.state, trial.reason, trial.finished_at = state, reason, clock(session)
    job.failures += state == TrialState.FAILED
    trial.sequence = _note(session, job, trial.number, state, reason, by)


def begin_trial(session: Session, job: Job, pack: Pack, by: str | None) -> Trial:
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
    trial.sequence = _note(session, job, trial.number, TrialState.RUNNING, None, by)
    return trial


def begin_again(session: Session, job: Job, trial: Trial, pack: Pack, detail: str, by: str) -> None:
    """Let a trial of a locked job that has ended run again, in another pack."""
    job.failures -= trial.state == TrialState.FAILED
    trial.state, trial.reason, trial.finished_at = TrialState.RUNNING, None, None
    trial.pack_id = cast("int", pack.id)
    trial.sequence = _note(session, job, trial.number, TrialState.RUNNING, detail, by)


def reasons(session: Session, trial: Trial) -> list[str | None]:
    """Why a trial is in the state that it is in, and why it came to those before: the last first."""
    of_trial = (col(Event.job_id) == trial.job_id, col(Event.trial) == trial.number)
    return list(session.scalars(select(col(Event.detail)).where(*of_trial).order_by(col(Event.sequence).desc())))


def stamp(job: Job, trial: Trial) -> int:
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
    session.flush()
    return job.sequence


def account(session: Session, job: Job) -> None:
    """Bring the time that a locked job has had a pack leased up to date; called before and after leases change."""
    present, leased_until = clock(session), _leased_until(session, job)
    job.active_seconds = _active_seconds(job, present, leased_until)
    job.active_since = present if leased_until > present else None


def active_seconds(session: Session, job: Job) -> float:
    """Seconds that a job has had a pack leased, by now."""
    return _active_seconds(job, clock(session), _leased_until(session, job))


def out_of_time(session: Session, job: Job) -> bool:
    """Whether a job has used up its seconds."""
    return job.seconds_limit is not None and active_seconds(session, job) >= job.seconds_limit


def _active_seconds(job: Job, present: float, leased_until: float) -> float:
    if job.active_since is None:
        return job.active_seconds
    # Where every lease ran out, as when the machine slept, the time since then does not count.
    return job.active_seconds + max(0.0, min(present, leased_until) - job.active_since)


def _leased_until(session: Session, job: Job) -> float:
    """When the last lease of a job's packs ends; long ago where there is none."""
    of_job = (col(Pack.job_id) == job.id, col(Pack.done).is_(False))
    return session.scalar(select(func.max(Pack.lease_expires_at)).where(*of_job)) or 0.0


def lease(session: Session, pack: Pack, owner: str, lease_seconds: float) -> None:
    """Give a pack to `owner`: whoever held it before can no longer write."""
    session.execute(
        update(Pack)
        .where(col(Pack.id) == pack.id)
        .values(lease_owner=owner, lease_epoch=Pack.lease_epoch + 1, lease_expires_at=now() + lease_seconds)
    )
    session.refresh(pack)
