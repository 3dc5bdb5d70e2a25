"""How long a job may take, from trials that were measured here before."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session, col

from ml.records import TrialState
from ml.specs import TrainSpec, TuneSpec
from worker.database.tables import Job, Trial

RECENT = 20  # jobs that are looked at
ENOUGH = 2000  # trials of theirs, at most
FACTOR = 1.5  # by so much a batch size may lie outside those of the job: the time of an epoch goes with its steps


@dataclass(frozen=True)
class Estimate:
    """A duration in seconds, None where nothing like it was measured, and of how many trials it was made."""

    seconds: float | None
    trials: int


@dataclass(frozen=True)
class _Past:
    """A trial that has ended."""

    batch_size: int
    epochs: float
    allowed: int  # epochs that its job allowed
    seconds: float  # its share of its pack's time


def estimate(session: Session, spec: TrainSpec | TuneSpec) -> Estimate:
    """How long the job has work, by the last jobs of the same kind, network and data set.

    Trials × epochs × the share of their epochs that those trials ran (others were pruned or stopped) × the seconds an
    epoch of theirs took, divided by how many trained at once. Only trials with batches of about the same size count.
    """
    jobs = _jobs(session, spec)
    past = [trial for trial in _past(session, jobs) if _alike(trial.batch_size, spec)]
    epochs, allowed, worked = (sum(getattr(t, name) for t in past) for name in ("epochs", "allowed", "seconds"))
    if not epochs:
        return Estimate(None, 0)
    once = spec.budget.epochs * (epochs / allowed) * (worked / epochs)  # of one trial, alone
    trials = spec.trial_limit if isinstance(spec, TuneSpec) else 1
    needed = trials * once / min(trials, _at_once(session, jobs))
    return Estimate(round(min(needed, spec.budget.seconds or needed), 1), len(past))


def _jobs(session: Session, spec: TrainSpec | TuneSpec) -> Sequence[Job]:
    kind = "tune" if isinstance(spec, TuneSpec) else "train"
    like = (col(Job.kind) == kind, col(Job.model) == spec.model, col(Job.dataset) == spec.dataset.name)
    newest = session.scalars(select(Job).where(*like).order_by(col(Job.created_at).desc()).limit(RECENT)).all()
    return [job for job in newest if job.spec.get("images") == spec.images]


def _past(session: Session, jobs: Sequence[Job]) -> list[_Past]:
    allowed = {job.id: job.spec["budget"]["epochs"] for job in jobs}
    columns = (col(Trial.job_id), col(Trial.params), col(Trial.epochs_run), col(Trial.seconds))
    ended = (col(Trial.job_id).in_(allowed), col(Trial.state) != TrialState.RUNNING, col(Trial.epochs_run) > 0)
    rows = session.execute(select(*columns).where(*ended).order_by(col(Trial.id).desc()).limit(ENOUGH))
    return [_Past(params["batch_size"], epochs, allowed[job_id], seconds) for job_id, params, epochs, seconds in rows]


def _at_once(session: Session, jobs: Sequence[Job]) -> float:
    """How many trials of these jobs had a trainer to themselves at once, in the mean over their time."""
    ids = [job.id for job in jobs if job.active_seconds]
    worked = session.scalar(select(func.sum(Trial.seconds)).where(col(Trial.job_id).in_(ids))) or 0.0
    active = sum(job.active_seconds for job in jobs)
    return max(worked / active, 0.1) if active else 1.0


def _alike(batch_size: int, spec: TrainSpec | TuneSpec) -> bool:
    low, high = _batch_sizes(spec)
    return low / FACTOR <= batch_size <= high * FACTOR


def _batch_sizes(spec: TrainSpec | TuneSpec) -> tuple[int, int]:
    """The least and the greatest batch size that a trial of the job may have."""
    default = spec.network.params().batch_size
    if isinstance(spec, TrainSpec):
        size: Any = spec.params.get("batch_size", default)
        return size, size
    dimension = spec.search_space.get("batch_size")
    corners = dimension.corners() if dimension is not None else [default]
    return min(corners), max(corners)
