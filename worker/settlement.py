"""Settlement: what follows for a job when a pack has ended or somebody cancelled."""

from sqlalchemy import func, select
from sqlmodel import Session, col

from ml.records import TrialState
from worker.journal import active_seconds, clock, job_changed
from worker.tables import Job, JobState, ModelVersion, Pack, Purpose, StopReason, Trial

HOPELESS = 10  # trials that failed with none that worked; a job like this is stopped


def settle(session: Session, job: Job) -> None:
    """Take a locked job as far as it can go: to publication, to its end, or nowhere while trials run or remain."""
    if JobState(job.state).final or _open_packs(session, job):
        return
    reason = job.stop_reason or spent(session, job)
    if reason is None:
        return
    job.stop_reason = reason
    if reason == StopReason.CANCELLED:
        _end(session, job, JobState.CANCELLED, None)
    elif job.error or job.best_trial is None:
        _end(session, job, JobState.FAILED, job.error or _why_no_winner(session, job))
    elif _published(session, job):
        _end(session, job, JobState.COMPLETED, None)
    else:
        if job.state != JobState.STOPPING:
            job_changed(
                session, job, JobState.STOPPING, f"no more trials ({reason}); publishing trial {job.best_trial}"
            )
        session.add(Pack(job_id=job.id, purpose=Purpose.PUBLISH, key="", lanes=0))


def _end(session: Session, job: Job, state: JobState, error: str | None) -> None:
    job.error = error
    job.finished_at = clock(session)
    job_changed(session, job, state, error or job.stop_reason)


def _open_packs(session: Session, job: Job) -> int:
    statement = select(func.count()).select_from(Pack).where(col(Pack.job_id) == job.id, col(Pack.done).is_(False))
    return session.scalar(statement) or 0


def _published(session: Session, job: Job) -> bool:
    statement = select(col(ModelVersion.id)).where(col(ModelVersion.job_id) == job.id, col(ModelVersion.run) == job.run)
    return session.scalar(statement) is not None


def spent(session: Session, job: Job) -> StopReason | None:
    """The limit that a job has reached, None while it may begin another trial."""
    if job.best_trial is None and job.failures >= HOPELESS:
        return StopReason.FAILURES
    if job.reserved >= job.trial_limit:
        asked = job.spec["budget"].get("trials")
        return StopReason.TRIALS if asked == job.trial_limit or job.kind == "train" else StopReason.SPACE_EXHAUSTED
    if job.seconds_limit is not None and active_seconds(session, job) >= job.seconds_limit:
        return StopReason.SECONDS
    return None


def _why_no_winner(session: Session, job: Job) -> str:
    counts = session.execute(
        select(col(Trial.state), func.count()).where(col(Trial.job_id) == job.id).group_by(col(Trial.state))
    ).all()
    ended = ", ".join(f"{count} {state}" for state, count in sorted(counts))
    last = session.scalar(
        select(col(Trial.reason))
        .where(col(Trial.job_id) == job.id, col(Trial.state) != TrialState.RUNNING)
        .order_by(col(Trial.number).desc())
        .limit(1)
    )
    return f"no trial can be published: {ended or 'none was begun'}. The last one: {last}"
