"""Controls: what people ask of a job that was accepted.

Each may be asked again without another effect, and works while no worker is there: it changes rows, which workers look
at every two seconds. Each answers with things as they stand after it, also where it came too late.
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
from worker.ledger.idempotency import Once, remember, remembered
from worker.ledger.job_spec import spec_of
from worker.ledger.packs import drop, end_pack, end_running, new_pack, running
from worker.ledger.retention import uploads
from worker.ledger.settlement import end_job, reopen, settle, spent
from worker.ledger.transitions import (
    REQUEST,
    account,
    begin_again,
    begin_trial,
    end_trial,
    lock_job,
    move_job,
    note_job,
    out_of_time,
)

GOING = (JobState.QUEUED, JobState.RUNNING, JobState.PAUSED)  # states in which a job may begin trials, now or later


class Controls:
    """What can be asked of jobs."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def cancel(self, job_id: str) -> tuple[Job, list[str]]:
        """End a job at once; the job, and the paths of files that no row needs any more.

        One that has ended stays as it is. Nothing more is written of it: workers find their packs ended.
        """
        with self.database.writing() as session:
            job = lock_job(session, job_id)
            unneeded: list[str] = []
            if not JobState(job.state).final:
                account(session, job)
                for pack in _open_packs(session, job):
                    end_running(session, job, pack, TrialState.CANCELLED, "the job was cancelled", REQUEST)
                    unneeded += end_pack(session, pack)
                session.flush()
                account(session, job)
                unneeded += drop(session, uploads(session, job))
                job.stop_reason = StopReason.CANCELLED
                end_job(session, job, JobState.CANCELLED, "cancelled by request", REQUEST)
            return job, unneeded

    def pause(self, job_id: str) -> Job:
        """Let nothing be worked on until the job is resumed; Conflict where it is ending or has ended."""
        with self.database.writing() as session:
            job = lock_job(session, job_id)
            if job.state in (JobState.QUEUED, JobState.RUNNING) or _runs_off(session, job):
                move_job(session, job, JobState.PAUSED, "paused by request", REQUEST)
            elif job.state != JobState.PAUSED:
                raise Conflict(f"the job is {_where(session, job)}; there is nothing to pause")
            return job

    def resume(self, job_id: str) -> Job:
        """Let a paused job go on; one that goes on stays as it is. Conflict where it has ended."""
        with self.database.writing() as session:
            job = lock_job(session, job_id)
            if JobState(job.state).final:
                further = "post another" if job.predicts else "raise its budget to let a completed one go on"
                raise Conflict(f"the job is {_where(session, job)}; {further}")
            if job.state == JobState.PAUSED:
                move_job(session, job, _before_pause(job), "resumed by request", REQUEST)
                settle(session, job, REQUEST)
            return job

    def extend(self, job_id: str, budget: dict[str, Any]) -> Job:
        """Change the limits on trials and seconds; a completed job whose new budget allows for more goes on.

        SpecError where the new budget is none, Conflict where more was begun already or the job cannot go on.
        """
        with self.database.writing() as session:
            job = _locked_with_trials(session, job_id)
            if job.state not in (*GOING, JobState.COMPLETED) or _publishes(job):
                raise Conflict(f"the job is {_where(session, job)}; its budget cannot be changed")
            spec = _with_budget(spec_of(session, job), budget)
            limits = _limits(spec)
            if limits == (job.trial_limit, job.seconds_limit) and spec.budget.model_dump() == job.spec["budget"]:
                return job
            if limits[0] < job.reserved:
                raise Conflict(f"{job.reserved} trials were begun already; ask for as many or more")
            job.spec = spec.model_dump(mode="json")
            job.trial_limit, job.seconds_limit = limits
            if job.state != JobState.COMPLETED:
                note_job(session, job, f"the budget is now {_words(spec)}", REQUEST)
                settle(session, job, REQUEST)
            elif spent(session, job) is None:
                reopen(session, job, f"the budget is now {_words(spec)}", REQUEST)
            return job

    def enqueue(self, job_id: str, params: dict[str, Any], once: Once | None = None) -> Trial:
        """Begin a trial with these hyper-parameters, the others drawn; it counts as one of the budget's.

        SpecError where they are not of the search space, Conflict where the job begins no more trials.
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
        """Let a failed trial run again, from its start; one that runs stays as it is. Conflict for any other."""
        with self.database.writing() as session:
            job = _locked_with_trials(session, job_id)
            trial = _trial(session, job_id, number)
            if trial.state == TrialState.RUNNING:
                return trial
            if trial.state != TrialState.FAILED:
                raise Conflict(f"the trial is {trial.state}; only a failed one can be tried again")
            if job.state in (JobState.STOPPING, JobState.CANCELLED) or _publishes(job):
                raise Conflict(f"the job is {_where(session, job)}; no trial of it can run again")
            if out_of_time(session, job):
                raise Conflict("the job's seconds are spent", Fact.OUT_OF_TIME, job_id=job_id)
            again(session, job, trial, "tried again by request", REQUEST)
            return trial

    def cancel_trial(self, job_id: str, number: int) -> tuple[Trial, list[str]]:
        """End one trial at once; the trial, and the paths of files that no row needs any more.

        One that has ended stays as it is. The worker that trains it leaves it out within seconds.
        """
        with self.database.writing() as session:
            job = lock_job(session, job_id)
            trial = _trial(session, job_id, number)
            if trial.state != TrialState.RUNNING:
                return trial, []
            end_trial(session, job, trial, TrialState.CANCELLED, "cancelled by request", REQUEST)
            session.flush()
            pack = session.get_one(Pack, trial.pack_id)
            unneeded: list[str] = []
            if pack.lease_expires_at is None and not running(session, pack):
                unneeded = end_pack(session, pack)
                session.flush()
                settle(session, job, REQUEST)
            return trial, unneeded


def again(session: Session, job: Job, trial: Trial, why: str, by: str) -> None:
    """Let a trial of a locked job that has ended run again from its start; a job that has ended goes on for it."""
    session.execute(delete(Measurement).where(col(Measurement.trial_id) == trial.id))
    trial.attrs, trial.start_step = {}, None
    trial.value = trial.best_epoch = trial.train_loss = trial.val_loss = trial.val_accuracy = None
    trial.epochs_run, trial.seconds = 0.0, 0.0
    if JobState(job.state).final:
        reopen(session, job, f"trial {trial.number} is {why}", by)
    begin_again(session, job, trial, new_pack(session, job, trial.number), why, by)


def _locked_with_trials(session: Session, job_id: str) -> Job:
    """A job, locked; Conflict where it is one without trials."""
    job = lock_job(session, job_id)
    if job.predicts:
        raise Conflict("the job classifies images: it has no trials and no budget; post another to classify more")
    return job


def _open_packs(session: Session, job: Job) -> list[Pack]:
    return list(session.scalars(select(Pack).where(col(Pack.job_id) == job.id, col(Pack.done).is_(False))))


def _before_pause(job: Job) -> JobState:
    if _publishes(job):
        return JobState.STOPPING
    return JobState.RUNNING if job.started_at is not None else JobState.QUEUED


def _publishes(job: Job) -> bool:
    """Whether the winner is being chosen and published, or waits to be while the job is held."""
    return job.stop_reason is not None and not JobState(job.state).final


def _runs_off(session: Session, job: Job) -> bool:
    """Whether the best are being trained again, which may take hours."""
    running_off = any(pack.purpose == PackPurpose.RUN_OFF for pack in _open_packs(session, job))
    return job.state == JobState.STOPPING and running_off


def _where(session: Session, job: Job) -> str:
    if job.state != JobState.STOPPING:
        return str(job.state)
    return "in its run-off" if _runs_off(session, job) else "publishing its winner"


def _check_begins(session: Session, job: Job) -> None:
    if job.state not in GOING or _publishes(job):
        raise Conflict(
            f"the job is {_where(session, job)} and begins no more trials; raise the budget of a completed one"
        )
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
    """The search that a job asks for; Conflict where it asks for none."""
    if isinstance(spec, TrainSpec):
        raise Conflict("a training job has one trial; post a tuning job to try others")
    return spec


def _with_budget(spec: TrainSpec | TuneSpec, limits: dict[str, Any]) -> TrainSpec | TuneSpec:
    """The specification with some limits changed; SpecError where they are none."""
    known = {"seconds"} if isinstance(spec, TrainSpec) else {"trials", "seconds"}
    unknown = sorted(set(limits) - known)
    if unknown:
        raise SpecError([Problem(("budget", name), f"cannot be changed; {_names(known)} can") for name in unknown])
    body = {**spec.model_dump(), "dataset": spec.dataset, "budget": {**spec.budget.model_dump(), **limits}}
    return type(spec).model_validate(body)


def _names(names: set[str]) -> str:
    return " and ".join(sorted(names, reverse=True))


def _limits(spec: TrainSpec | TuneSpec) -> tuple[int, float | None]:
    tune = spec.as_tune()
    return tune.trial_limit, tune.budget.seconds


def _words(spec: TrainSpec | TuneSpec) -> str:
    """A budget in words."""
    limits = spec.budget.model_dump(include={"trials", "seconds"}, exclude_none=True)
    return " and ".join(f"{value:g} {name}" for name, value in limits.items()) or "no limit"
