"""The learning curves of all trials of a job in one answer."""

from itertools import groupby
from typing import Any, cast

import orjson
from fastapi import APIRouter, Response
from pydantic import BaseModel, Field
from sqlalchemy import select
from sqlmodel import Session, col

from api.deps import DatabaseDep
from api.views.jobs import JobId
from ml.records import epochs_of
from worker.database.tables import Job, Measurement, Trial
from worker.errors import Fact, NotFound

router = APIRouter(prefix="/jobs", tags=["jobs"])

COLUMNS = ("train_loss", "val_loss", "val_accuracy", "seconds")  # of a curve, besides the epoch


class Curve(BaseModel):
    """A trial's learning curve: each list has one entry per measurement."""

    number: int = Field(description="the trial's number")
    epoch: list[float]
    train_loss: list[float | None]
    val_loss: list[float | None]
    val_accuracy: list[float | None]
    seconds: list[float]


class Curves(BaseModel):
    """The learning curves of a job's trials."""

    sequence: int = Field(
        description="id of the last event that the curves include; read later ones from the event stream"
    )
    curves: list[Curve]


@router.get("/{job_id}/curves")
def list_curves(job_id: JobId, database: DatabaseDep) -> Curves:
    """Return the learning curves of all trials, in the order of their numbers.

    The event stream sends the same measurements but takes fifty times as long.
    """
    with database.reading() as session:
        sequence = session.scalar(select(col(Job.sequence)).where(col(Job.id) == job_id))
        if sequence is None:
            raise NotFound("there is no such job", Fact.NO_JOB)
        found = {"sequence": sequence, "curves": _curves(session, job_id)}
    # A ready response skips pydantic's validation, which is slow for 20,000 epochs.
    return cast("Curves", Response(orjson.dumps(found), media_type="application/json"))


def _curves(session: Session, job_id: str) -> list[dict[str, Any]]:
    columns = [getattr(Measurement, name) for name in COLUMNS]
    rows = session.execute(
        select(col(Trial.number), col(Measurement.step), *columns)
        .join(Trial, col(Trial.id) == Measurement.trial_id)
        .where(col(Trial.job_id) == job_id)
        .order_by(col(Trial.number), col(Measurement.step))
    )
    return [_curve(number, list(of_trial)) for number, of_trial in groupby(rows, key=lambda row: row.number)]


def _curve(number: int, rows: list[Any]) -> dict[str, Any]:
    _, steps, *columns = zip(*rows, strict=True)
    return {"number": number, "epoch": [epochs_of(step) for step in steps], **dict(zip(COLUMNS, columns, strict=True))}
