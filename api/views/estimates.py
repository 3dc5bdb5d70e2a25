"""Estimates of a job's duration, from earlier trials of similar jobs in this database."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, select
from sqlmodel import Session, col

from ml.records import TrialState
from ml.specs import TrainSpec, TuneSpec
from worker.database.tables import Job, Trial

MAX_JOBS = 20  # newest similar jobs to read
MAX_TRIALS = 2000  # newest trials of these jobs to read
FACTOR = 1.5  # tolerance of batch sizes: an epoch's time grows with its number of steps


@dataclass(frozen=True)
class Estimate:
    """An estimate of a job's duration."""

    seconds: float | None  # None if no similar job has run
    trials: int  # earlier trials that the estimate is based on


@dataclass(frozen=True)
class _EndedTrial:
    """A trial of a similar job that has ended."""

    batch_size: int
    epochs: float
    allowed: int  # epochs in its job's budget
    seconds: float  # its share of its pack's time


def estimate(session: Session, spec: TrainSpec | TuneSpec) -> Estimate:
    """Estimate the duration of a job from the newest jobs of the same kind, network and data set.

    The duration is trials × epochs × share × seconds per epoch / trials trained at once. The share is the fraction of
    its epochs that an earlier trial ran before it was pruned or stopped. Only trials with similar batch sizes count.
    """
    jobs = _jobs(session, spec)
    similar = [trial for trial in _ended(session, jobs) if _is_similar(trial.batch_size, spec)]
    epochs, allowed, seconds = (sum(getattr(t, name) for t in similar) for name in ("epochs", "allowed", "seconds"))
    if not epochs:
        return Estimate(None, 0)
    one_alone = spec.budget.epochs * (epochs / allowed) * (seconds / epochs)  # seconds of one trial by itself
    trials = spec.trial_limit if isinstance(spec, TuneSpec) else 1
    needed = trials * one_alone / min(trials, _at_once(session, jobs))
    return Estimate(round(min(needed, spec.budget.seconds or needed), 1), len(similar))


def _jobs(session: Session, spec: TrainSpec | TuneSpec) -> Sequence[Job]:
    kind = "tune" if isinstance(spec, TuneSpec) else "train"
    like = (col(Job.kind) == kind, col(Job.model) == spec.model, col(Job.dataset) == spec.dataset.name)
    newest = session.scalars(select(Job).where(*like).order_by(col(Job.created_at).desc()).limit(MAX_JOBS)).all()
    return [job for job in newest if job.spec.get("images") == spec.images]


def _ended(session: Session, jobs: Sequence[Job]) -> list[_EndedTrial]:
    allowed = {job.id: job.spec["budget"]["epochs"] for job in jobs}
    columns = (col(Trial.job_id), col(Trial.params), col(Trial.epochs_run), col(Trial.seconds))
    ended = (col(Trial.job_id).in_(allowed), col(Trial.state) != TrialState.RUNNING, col(Trial.epochs_run) > 0)
    rows = session.execute(select(*columns).where(*ended).order_by(col(Trial.id).desc()).limit(MAX_TRIALS))
    return [
        _EndedTrial(params["batch_size"], epochs, allowed[job_id], seconds) for job_id, params, epochs, seconds in rows
    ]


def _at_once(session: Session, jobs: Sequence[Job]) -> float:
    """Return the mean number of trials that trained in parallel: trial seconds per active second, at least 0.1."""
    ids = [job.id for job in jobs if job.active_seconds]
    worked = session.scalar(select(func.sum(Trial.seconds)).where(col(Trial.job_id).in_(ids))) or 0.0
    active = sum(job.active_seconds for job in jobs)
    return max(worked / active, 0.1) if active else 1.0


def _is_similar(batch_size: int, spec: TrainSpec | TuneSpec) -> bool:
    low, high = _batch_sizes(spec)
    return low / FACTOR <= batch_size <= high * FACTOR


def _batch_sizes(spec: TrainSpec | TuneSpec) -> tuple[int, int]:
    """Return the smallest and the largest batch size in the job's search space."""
    default = spec.network.params().batch_size
    if isinstance(spec, TrainSpec):
        size: Any = spec.params.get("batch_size", default)
        return size, size
    dimension = spec.search_space.get("batch_size")
    corners = dimension.corners() if dimension is not None else [default]
    return min(corners), max(corners)
