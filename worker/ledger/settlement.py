"""Settlement: the next step of a job after a pack has ended or a trial was cancelled."""

from sqlalchemy import and_, func, or_, select
from sqlmodel import Session, col

from ml.records import TrialState
from worker.database.clock import clock
from worker.database.tables import Job, JobState, ModelVersion, Pack, PackPurpose, StopReason, Trial
from worker.ledger.run_off_start import begin_run_off
from worker.ledger.transitions import move_job, out_of_time

HOPELESS = 10  # failed trials after which a job without any good trial is stopped


def settle(session: Session, job: Job, by: str | None) -> None:
    """Move a locked job on as far as possible: to its run-off, its publication or its end.

    Nothing changes while the job is paused, has open packs, or may begin more trials.
    """
    if JobState(job.state).final or job.state == JobState.PAUSED or _open_packs(session, job):
        return
    if job.predicts:
        _settle_prediction(session, job, by)
        return
    reason = StopReason(job.stop_reason) if job.stop_reason else spent(session, job)
    if reason is None:
        return
    job.stop_reason = reason
    if job.error or job.best_trial is None:
        end_job(session, job, JobState.FAILED, job.error or _why_no_winner(session, job), by)
    elif _published(session, job):
        end_job(session, job, JobState.COMPLETED, reason, by)
    elif trainings := begin_run_off(session, job):
        _end_search(
            session, job, f"no more trials ({reason}); a run-off of {trainings} trainings decides between the best", by
        )
    else:
        _end_search(session, job, f"no more trials ({reason}); publishing trial {job.best_trial}", by)
        session.add(Pack(job_id=job.id, purpose=PackPurpose.PUBLISH, key="", lanes=0))


def _end_search(session: Session, job: Job, detail: str, by: str | None) -> None:
    if job.state != JobState.STOPPING:
        move_job(session, job, JobState.STOPPING, detail, by)


def _settle_prediction(session: Session, job: Job, by: str | None) -> None:
    """End a job that classifies images, if it has its result or cannot get it."""
    if job.error:
        end_job(session, job, JobState.FAILED, job.error, by)
    elif job.result is not None:
        end_job(session, job, JobState.COMPLETED, f"{job.result['images']} images were classified", by)


def end_job(session: Session, job: Job, state: JobState, detail: str, by: str | None) -> None:
    """End a locked job that has no open pack."""
    job.error = detail if state == JobState.FAILED else None
    job.finished_at = clock(session)
    move_job(session, job, state, detail, by)


def reopen(session: Session, job: Job, why: str, by: str) -> None:
    """Let a locked job that has ended run again, as its next run."""
    job.run += 1
    job.stop_reason = job.error = job.finished_at = None
    move_job(session, job, JobState.QUEUED, f"run {job.run}: {why}", by)


def _open_packs(session: Session, job: Job) -> int:
    statement = select(func.count()).select_from(Pack).where(col(Pack.job_id) == job.id, col(Pack.done).is_(False))
    return session.scalar(statement) or 0


def _published(session: Session, job: Job) -> bool:
    """Return whether the job's winner is a version already.

    Without a run-off, a version of an earlier run counts if the same trial with the same value won it.
    """
    winner = and_(col(ModelVersion.trial) == job.best_trial, col(ModelVersion.value) == job.best_value)
    this_run = col(ModelVersion.run) == job.run
    same = this_run if job.spec.get("run_off") else or_(this_run, winner)
    # Other trials of the front are versions too; only the winner's has a test accuracy.
    tested = col(ModelVersion.test_accuracy).is_not(None)
    statement = select(col(ModelVersion.id)).where(col(ModelVersion.job_id) == job.id, same, tested)
    return session.scalar(statement.limit(1)) is not None


def spent(session: Session, job: Job) -> StopReason | None:
    """Return the limit that a job has reached; None while it may begin another trial."""
    if job.best_trial is None and job.failures >= HOPELESS:
        return StopReason.FAILURES
    if job.reserved >= job.trial_limit:
        asked = job.spec["budget"].get("trials")
        return StopReason.TRIALS if asked == job.trial_limit or job.kind == "train" else StopReason.SPACE_EXHAUSTED
    if out_of_time(session, job):
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
    return f"no trial can be published: {ended or 'none was begun'}. Reason of the last trial: {last}"
