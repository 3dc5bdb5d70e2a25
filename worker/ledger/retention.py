"""Retention: whose checkpoints a job keeps.

The best trial's, those of trials that no other beats in everything: at least as good an objective with no more FLOPs
and no more weights, and those that a run-off is to decide between. The rest is removed, so that a thousand trials do
not fill a disk. What a version was made of stays. Images that were uploaded to be classified go when their job ends;
what was answered stays.
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
    """What a trial is held against others by."""

    number: int
    value: float  # the higher, the better
    flops: float
    weights: float

    @classmethod
    def of(cls, job: Job, trial: Trial, value: float) -> "Standing":
        """A trial of a job, with the value that it has or may get."""
        sizes = [inf if size is None else size for size in (trial.flops, trial.weights)]
        return cls(trial.number, value if job.maximize else -value, *sizes)

    def beats(self, other: "Standing") -> bool:
        """Whether the other is nowhere better; of equals the first is kept."""
        mine = (-self.value, self.flops, self.weights)
        its = (-other.value, other.flops, other.weights)
        no_worse = all(a <= b for a, b in zip(mine, its, strict=True))
        return no_worse and (mine != its or self.number < other.number)


def standing_order(job: Job, trial: Trial) -> tuple[float, int]:
    """What judged trials of a job are sorted by, the best first; of equals the one that was begun first."""
    value = cast("float", trial.value)
    return (-value if job.maximize else value, trial.number)


def leads(job: Job, number: int, value: float) -> bool:
    """Whether a value is the best of a job so far; of equals the trial that was begun first leads."""
    if job.best_value is None or job.best_trial is None:
        return True
    if value == job.best_value:
        return number <= job.best_trial
    return value > job.best_value if job.maximize else value < job.best_value


def worth_keeping(session: Session, job: Job, trial: Trial, value: float) -> bool:
    """Whether the checkpoint of a trial with this value would be kept."""
    own, front = Standing.of(job, trial, value), _front(session, job)
    if leads(job, trial.number, value) or trial.number in _finalists(job, [*front, own]):
        return True
    return not any(other.beats(own) for other in front)


def outdone(session: Session, job: Job) -> list[Artifact]:
    """The checkpoints of a job that need not be kept."""
    front = _front(session, job)
    beaten = {one.number for one in front if any(other.beats(one) for other in front)} - {
        job.best_trial,
        *_finalists(job, front),
    }
    published = select(col(ModelVersion.checkpoint_id)).where(col(ModelVersion.job_id) == job.id)
    statement = select(Artifact).where(*_of(job), col(Artifact.trial).in_(beaten), col(Artifact.id).not_in(published))
    return list(session.scalars(statement)) if beaten else []


def finalists(session: Session, job: Job) -> list[int]:
    """The trials, by number, that the run-off of a job decides between, the best first; none where it asks for none."""
    return _finalists(job, _front(session, job))


def runner_up(session: Session, job: Job) -> tuple[int | None, float | None]:
    """The best of a job's trials that have a checkpoint, and its value; None where there is none."""
    front = _front(session, job)
    if not front:
        return None, None
    best = max(front, key=lambda one: (one.value, -one.number))
    return best.number, best.value if job.maximize else -best.value


def on_front(session: Session, job: Job) -> list[int]:
    """The trials with a checkpoint that no other beats in objective and FLOPs, or objective and weights; best first."""
    kept = [one for one in _front(session, job) if isfinite(one.flops) and isfinite(one.weights)]
    numbers = {
        number
        for size in ("flops", "weights")
        for number in front(Point(one.number, one.value, getattr(one, size)) for one in kept)
    }
    return [one.number for one in sorted(kept, key=lambda one: (-one.value, one.number)) if one.number in numbers]


def _front(session: Session, job: Job) -> list[Standing]:
    """The trials of a job that have a checkpoint."""
    with_checkpoint = select(col(Artifact.trial)).where(*_of(job))
    statement = select(Trial).where(
        col(Trial.job_id) == job.id, col(Trial.number).in_(with_checkpoint), col(Trial.value).is_not(None)
    )
    return [Standing.of(job, trial, cast("float", trial.value)) for trial in session.scalars(statement)]


def _finalists(job: Job, standings: list[Standing]) -> list[int]:
    """As many of the best as the run-off of a job is to decide between."""
    top = (job.spec.get("run_off") or {}).get("top", 0)
    return [one.number for one in sorted(standings, key=lambda one: (-one.value, one.number))[:top]]


def _of(job: Job) -> tuple[Any, ...]:
    return (col(Artifact.job_id) == job.id, col(Artifact.kind) == "checkpoint")
