"""Requests that change an accepted job: cancel, pause, resume, extend, and those about single trials.

A request that is repeated has no further effect. Each works even if no worker runs: it changes rows, which workers read
every two seconds. Each returns the job or trial as it is afterwards, even if the request came too late.
"""

from typing import Any, cast

from sqlalchemy import delete, select
from sqlmodel import Session, col

from ml.errors import Problem, SpecError
from ml.records import TrialState
from ml.specs import TrainSpec, TuneSpec
from worker.database.engine import Database
from worker.database.tables import Job, JobState, Measurement, Pack, PackPurpose, StopReason, Trial
from worker.errors import Conflict, Fact, NotFound
from worker.ledger.files import delete_uploads
from worker.ledger.idempotency import Once, remember, remembered
from worker.ledger.job_spec import spec_of
from worker.ledger.limits import trial_limit
from worker.ledger.packs import end_pack, end_running, new_pack, running
from worker.ledger.settlement import end_job, reopen, settle, spent
from worker.ledger.transitions import (
    REQUEST,
    begin_again,
    begin_trial,
    end_trial,
    lease_change,
    lock_job,
    move_job,
    note_job,
    out_of_time,
)

GOING = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)  # states in which a job may begin trials, now or later


class Controls:
    """The requests that change jobs and trials."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def cancel(self, job_id: str) -> Job:
        """End a job at once; a job that has ended stays as it is.

        Workers write nothing more about it, as they find their packs ended.
        """
        with self.database.writing() as session:
            job = lock_job(session, job_id)
            if not JobState(job.state).final:
                with lease_change(session, job):
                    for pack in _open_packs(session, job):
                        end_running(session, job, pack, TrialState.CANCELLED, "the job was cancelled", REQUEST)
                        end_pack(session, pack)
                delete_uploads(session, job)
                job.stop_reason = StopReason.CANCELLED
                end_job(session, job, JobState.CANCELLED, "cancelled by request", REQUEST)
            return job

    def pause(self, job_id: str) -> Job:
        """Pause a job until it is resumed.

        Raises:
            Conflict: if the job publishes its winner or has ended.
        """
        with self.database.writing() as session:
            job = lock_job(session, job_id)
            if job.state in (JobState.QUEUED, JobState.RUNNING) or _runs_off(session, job):
                move_job(session, job, JobState.PAUSED, "paused by request", REQUEST)
            elif job.state != JobState.PAUSED:
                raise Conflict(f"the job is {_state_text(session, job)} and cannot be paused")
            return job

    def resume(self, job_id: str) -> Job:
        """Resume a paused job; a job that is not paused stays as it is.

        Raises:
            Conflict: if the job has ended.
        """
        with self.database.writing() as session:
            job = lock_job(session, job_id)
            if JobState(job.state).final:
                further = "raise its budget instead" if _can_reopen(job) else "post a new job"
                raise Conflict(f"the job is {_state_text(session, job)} and cannot be resumed; {further}")
            if job.state == JobState.PAUSED:
                move_job(session, job, _before_pause(job), "resumed by request", REQUEST)
                settle(session, job, REQUEST)
            return job

    def extend(self, job_id: str, budget: dict[str, Any]) -> Job:
        """Change the limits on trials and seconds; a completed job runs again if they allow for more.

        Args:
            job_id: The job.
            budget: The limits to change, by name.

        Raises:
            SpecError: if a limit is unknown or its value is not allowed.
            Conflict: if more trials were begun than the new limit allows, or if the job cannot run again.
        """
        with self.database.writing() as session:
            job = _locked_with_trials(session, job_id)
            if job.state not in (*GOING, JobState.COMPLETED) or _publishes(job):
                raise Conflict(f"the job is {_state_text(session, job)}, so its budget cannot be changed")
            spec = _with_budget(spec_of(session, job), budget)
            limits = (trial_limit(session, job, spec), spec.budget.seconds)
            if limits == (job.trial_limit, job.seconds_limit) and spec.budget.model_dump() == job.spec["budget"]:
                return job
            if limits[0] < job.reserved:
                raise Conflict(f"{job.reserved} trials were begun already; give a limit of at least {job.reserved}")
            job.spec = spec.model_dump(mode="json")
            job.trial_limit, job.seconds_limit = limits
            if job.state != JobState.COMPLETED:
                note_job(session, job, f"the budget is now {_budget_text(spec)}", REQUEST)
                settle(session, job, REQUEST)
            elif spent(session, job) is None:
                reopen(session, job, f"the budget is now {_budget_text(spec)}", REQUEST)
            return job

    def enqueue(self, job_id: str, params: dict[str, Any], once: Once | None = None) -> Trial:
        """Begin a trial with these hyper-parameters; the sampler draws the others.

        The trial counts as one of the budget's.

        Raises:
            SpecError: if a value is outside of the search space.
            Conflict: if the job begins no more trials.
        """
        with self.database.writing() as session:
            if (before := remembered(session, once)) is not None:
                return _trial(session, before.job_id, cast("int", before.trial))
            job = _locked_with_trials(session, job_id)
            _check_begins(session, job)
            suggestion = _searched(spec_of(session, job)).fixed_values(params)
            trial = begin_trial(session, job, new_pack(session, job, job.reserved), REQUEST)
            trial.enqueued = suggestion
            remember(session, once, job.id, trial.number)
            return trial

    def retry(self, job_id: str, number: int) -> Trial:
        """Run a failed trial again from its start; a running one stays as it is.

        Raises:
            Conflict: if the trial ended in another state, or if no trial of the job can run again.
        """
        with self.database.writing() as session:
            job = _locked_with_trials(session, job_id)
            trial = _trial(session, job_id, number)
            if trial.state == TrialState.RUNNING:
                return trial
            if trial.state != TrialState.FAILED:
                raise Conflict(f"the trial is {trial.state}; only a failed trial can run again")
            if job.state in (JobState.STOPPING, JobState.CANCELLED) or _publishes(job):
                raise Conflict(f"the job is {_state_text(session, job)}, so none of its trials can run again")
            if out_of_time(session, job):
                raise Conflict("the job's seconds are spent", Fact.OUT_OF_TIME, job_id=job_id)
            run_again(session, job, trial, "retried by request", REQUEST)
            return trial

    def cancel_trial(self, job_id: str, number: int) -> Trial:
        """Cancel one trial at once; a trial that has ended stays as it is.

        The worker that trains it leaves it out within seconds.
        """
        with self.database.writing() as session:
            job = lock_job(session, job_id)
            trial = _trial(session, job_id, number)
            if trial.state != TrialState.RUNNING:
                return trial
            end_trial(session, job, trial, TrialState.CANCELLED, "cancelled by request", REQUEST)
            session.flush()
            pack = session.get_one(Pack, trial.pack_id)
            if pack.lease_expires_at is None and not running(session, pack):
                end_pack(session, pack)
                session.flush()
                settle(session, job, REQUEST)
            return trial


def run_again(session: Session, job: Job, trial: Trial, why: str, by: str) -> None:
    """Run an ended trial of a locked job again from its start; a job that has ended runs again for it."""
    session.execute(delete(Measurement).where(col(Measurement.trial_id) == trial.id))
    trial.attrs, trial.start_step, trial.lane = {}, None, 0
    trial.value = trial.best_epoch = trial.train_loss = trial.val_loss = trial.val_accuracy = None
    trial.epochs_run, trial.seconds = 0.0, 0.0
    if JobState(job.state).final:
        reopen(session, job, f"trial {trial.number} is {why}", by)
    begin_again(session, job, trial, new_pack(session, job, trial.number), why, by)


def _locked_with_trials(session: Session, job_id: str) -> Job:
    """Return a job that has trials, locked.

    Raises:
        Conflict: if the job classifies images.
    """
    job = lock_job(session, job_id)
    if job.predicts:
        raise Conflict("the job classifies images and has no trials or budget; post a new job to classify more")
    return job


def _can_reopen(job: Job) -> bool:
    """Return whether a larger budget lets a job that has ended run again."""
    return job.state == JobState.COMPLETED and not job.predicts


def _open_packs(session: Session, job: Job) -> list[Pack]:
    return list(session.scalars(select(Pack).where(col(Pack.job_id) == job.id, col(Pack.done).is_(False))))


def _before_pause(job: Job) -> JobState:
    if _publishes(job):
        return JobState.STOPPING
    return JobState.RUNNING if job.started_at is not None else JobState.QUEUED


def _publishes(job: Job) -> bool:
    """Return whether the job begins no more trials and its winner is not published yet, even if it is paused."""
    return job.stop_reason is not None and not JobState(job.state).final


def _runs_off(session: Session, job: Job) -> bool:
    """Return whether the job is in its run-off, which may take hours."""
    running_off = any(pack.purpose == PackPurpose.RUN_OFF for pack in _open_packs(session, job))
    return job.state == JobState.STOPPING and running_off


def _state_text(session: Session, job: Job) -> str:
    """Return the job's state as a sentence about it ends: "completed", or "publishing its winner"."""
    if job.state != JobState.STOPPING:
        return str(job.state)
    return "in its run-off" if _runs_off(session, job) else "publishing its winner"


def _check_begins(session: Session, job: Job) -> None:
    if job.state not in GOING or _publishes(job):
        further = "raise its budget first" if _can_reopen(job) else "post a new job"
        raise Conflict(f"the job is {_state_text(session, job)} and begins no more trials; {further}")
    reason = spent(session, job)
    if reason is not None:
        raise Conflict(f"the job's budget is spent ({reason}); raise it first")


def _trial(session: Session, job_id: str, number: int) -> Trial:
    trial = session.scalar(
        select(Trial)
        .where(col(Trial.job_id) == job_id, col(Trial.number) == number)
        .execution_options(populate_existing=True)
    )
    if trial is None:
        raise NotFound("the job has no such trial", Fact.NO_TRIAL, job_id=job_id)
    return trial


def _searched(spec: TrainSpec | TuneSpec) -> TuneSpec:
    """Return the specification of a search.

    Raises:
        Conflict: if the job trains a single trial.
    """
    if isinstance(spec, TrainSpec):
        raise Conflict("a training job has a single trial; post a tuning job to try other values")
    return spec


def _with_budget(spec: TrainSpec | TuneSpec, limits: dict[str, Any]) -> TrainSpec | TuneSpec:
    """Return the specification with some limits changed.

    Raises:
        SpecError: if a limit is unknown or its value is not allowed.
    """
    known = {"seconds"} if isinstance(spec, TrainSpec) else {"trials", "seconds"}
    unknown = sorted(set(limits) - known)
    if unknown:
        raise SpecError([Problem(("budget", name), f"cannot be changed; only {_names(known)} can") for name in unknown])
    body = {**spec.model_dump(), "dataset": spec.dataset, "budget": {**spec.budget.model_dump(), **limits}}
    return type(spec).model_validate(body).under(spec.rules)


def _names(names: set[str]) -> str:
    return " and ".join(sorted(names, reverse=True))


def _budget_text(spec: TrainSpec | TuneSpec) -> str:
    """Return a budget as a text, such as "20 trials and 600 seconds"."""
    limits = spec.budget.model_dump(include={"trials", "seconds"}, exclude_none=True)
    return " and ".join(f"{value:g} {name}" for name, value in limits.items()) or "no limit"
