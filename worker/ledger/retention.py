"""Retention: the trials whose checkpoints a job keeps.

A job keeps the checkpoints of its best trial, of the finalists of its run-off, and of each trial that no other trial
beats. One trial beats another if its objective is at least as good, with no more FLOPs and no more weights. All other
checkpoints are removed, so that a thousand trials do not fill a disk. The files of a version always stay.
"""

from dataclasses import dataclass
from math import inf, isfinite
from typing import Any, cast

from sqlalchemy import select
from sqlmodel import Session, col

from ml.analysis.pareto import Point, front
from worker.database.tables import Artifact, Job, ModelVersion, Trial


@dataclass(frozen=True)
class Standing:
    """The values that trials are compared by."""

    number: int
    value: float  # higher is better
    flops: float
    weights: float

    @classmethod
    def of(cls, job: Job, trial: Trial, value: float) -> "Standing":
        """Return the standing of a trial with the value that it has or may get."""
        sizes = [inf if size is None else size for size in (trial.flops, trial.weights)]
        return cls(trial.number, value if job.maximize else -value, *sizes)

    def beats(self, other: "Standing") -> bool:
        """Return whether `other` is better in no value; of two equal trials the first beats the second."""
        mine = (-self.value, self.flops, self.weights)
        its = (-other.value, other.flops, other.weights)
        no_worse = all(a <= b for a, b in zip(mine, its, strict=True))
        return no_worse and (mine != its or self.number < other.number)


def standing_order(job: Job, trial: Trial) -> tuple[float, int]:
    """Return the key that sorts judged trials of a job: the best first, and equal trials by number."""
    value = cast("float", trial.value)
    return (-value if job.maximize else value, trial.number)


def leads(job: Job, number: int, value: float) -> bool:
    """Return whether a value is the best of a job so far; of equal trials the lowest number leads."""
    if job.best_value is None or job.best_trial is None:
        return True
    if value == job.best_value:
        return number <= job.best_trial
    return value > job.best_value if job.maximize else value < job.best_value


def worth_keeping(session: Session, job: Job, trial: Trial, value: float) -> bool:
    """Return whether the checkpoint of a trial with this value would be kept."""
    own, front = Standing.of(job, trial, value), _front(session, job)
    if leads(job, trial.number, value) or trial.number in _finalists(job, [*front, own]):
        return True
    return not any(other.beats(own) for other in front)


def beaten_checkpoints(session: Session, job: Job) -> list[Artifact]:
    """Return the checkpoints of a job that need not be kept."""
    front = _front(session, job)
    beaten = {one.number for one in front if any(other.beats(one) for other in front)} - {
        job.best_trial,
        *_finalists(job, front),
    }
    published = select(col(ModelVersion.checkpoint_id)).where(col(ModelVersion.job_id) == job.id)
    statement = select(Artifact).where(*_of(job), col(Artifact.trial).in_(beaten), col(Artifact.id).not_in(published))
    return list(session.scalars(statement)) if beaten else []


def finalists(session: Session, job: Job) -> list[int]:
    """Return the numbers of the trials that a job's run-off decides between, best first; empty without a run-off."""
    return _finalists(job, _front(session, job))


def runner_up(session: Session, job: Job) -> tuple[int | None, float | None]:
    """Return the best of a job's trials that have a checkpoint, and its value; (None, None) if there is none."""
    front = _front(session, job)
    if not front:
        return None, None
    best = max(front, key=lambda one: (one.value, -one.number))
    return best.number, best.value if job.maximize else -best.value


def on_front(session: Session, job: Job) -> list[int]:
    """Return the numbers of the trials on the front, best first.

    They have a checkpoint, and no other trial beats them in objective and FLOPs, or in objective and weights.
    """
    kept = [one for one in _front(session, job) if isfinite(one.flops) and isfinite(one.weights)]
    numbers = {
        number
        for size in ("flops", "weights")
        for number in front(Point(one.number, one.value, getattr(one, size)) for one in kept)
    }
    return [one.number for one in sorted(kept, key=lambda one: (-one.value, one.number)) if one.number in numbers]


def _front(session: Session, job: Job) -> list[Standing]:
    """Return the standings of a job's trials that have a checkpoint."""
    with_checkpoint = select(col(Artifact.trial)).where(*_of(job))
    statement = select(Trial).where(
        col(Trial.job_id) == job.id, col(Trial.number).in_(with_checkpoint), col(Trial.value).is_not(None)
    )
    return [Standing.of(job, trial, cast("float", trial.value)) for trial in session.scalars(statement)]


def _finalists(job: Job, standings: list[Standing]) -> list[int]:
    """Return the numbers of the best trials, as many as the job's run-off decides between."""
    top = (job.spec.get("run_off") or {}).get("top", 0)
    return [one.number for one in sorted(standings, key=lambda one: (-one.value, one.number))[:top]]


def _of(job: Job) -> tuple[Any, ...]:
    return (col(Artifact.job_id) == job.id, col(Artifact.kind) == "checkpoint")
