"""The Pareto fronts of a job: the trials that no other trial beats in both accuracy and cost."""

from typing import Any, get_args

from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlmodel import Session, col

from ml.analysis.pareto import Cost, Point, front
from worker.database.tables import Job, ModelVersion, Trial
from worker.ledger.champions import versions_of

COSTS: tuple[Cost, ...] = get_args(Cost)


class Priced(BaseModel):
    """A trial, its accuracy and its costs."""

    trial: int
    val_accuracy: float
    seconds: float = Field(
        description="training and evaluation: the trial's share of the time of its pack; in jobs with rules 1 all "
        "trials of a pack have equal shares"
    )
    flops: int | None = Field(description="floating-point operations of one image's forward pass")
    weights: int | None = Field(description="number of weights")
    latency_seconds: float | None = Field(
        description="median latency of one image on one core; null if the trial is not published"
    )
    version: int | None = Field(description="version number if the trial is published")


class Pareto(BaseModel):
    """Pareto fronts of validation accuracy against each cost."""

    trials: int = Field(description="number of trials with an accuracy, including pruned and stopped ones")
    points: list[Priced] = Field(description="the trials on any front, by number")
    fronts: dict[Cost, list[int]] = Field(
        description="trial numbers by cost, cheapest first; no other trial is at least as accurate for at most the cost"
    )


def pareto_of(session: Session, job: Job) -> Pareto:
    """Return the Pareto fronts of a job's trials."""
    priced = _priced(session, job)
    fronts: dict[Cost, list[int]] = {cost: front(_points(priced, cost)) for cost in COSTS}
    shown = {number for numbers in fronts.values() for number in numbers}
    return Pareto(trials=len(priced), points=[p for p in priced if p.trial in shown], fronts=fronts)


def _points(priced: list[Priced], cost: Cost) -> list[Point]:
    prices = ((p, getattr(p, cost)) for p in priced)
    return [Point(p.trial, p.val_accuracy, price) for p, price in prices if price is not None]


def _priced(session: Session, job: Job) -> list[Priced]:
    versions = versions_of(session, job.id)
    names = ("number", "val_accuracy", "seconds", "flops", "weights", "value")
    rows = session.execute(
        select(*(col(getattr(Trial, name)) for name in names))
        .where(col(Trial.job_id) == job.id, col(Trial.value).is_not(None), col(Trial.val_accuracy).is_not(None))
        .order_by(col(Trial.number))
    )
    return [_priced_trial(row._asdict(), versions.get((row.number, row.value))) for row in rows]


def _priced_trial(row: dict[str, Any], version: ModelVersion | None) -> Priced:
    return Priced(
        trial=row["number"],
        **{name: row[name] for name in ("val_accuracy", "seconds", "flops", "weights")},
        latency_seconds=None if version is None else version.latency_seconds,
        version=None if version is None else version.version,
    )
