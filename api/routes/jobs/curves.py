"""The curves of all trials of a job at once."""

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
from worker.errors import NotFound

router = APIRouter(prefix="/jobs", tags=["jobs"])

FIGURES = ("train_loss", "val_loss", "val_accuracy", "seconds")


class Curve(BaseModel):
    """What a trial was measured to be, epoch by epoch: each list has a place an epoch."""

    number: int = Field(description="the trial's")
    epoch: list[float]
    train_loss: list[float | None]
    val_loss: list[float | None]
    val_accuracy: list[float | None]
    seconds: list[float]


class Curves(BaseModel):
    """The curves of a job's trials."""

    sequence: int = Field(description="an event's id: what its stream tells after this may not be among them")
    curves: list[Curve]


@router.get("/{job_id}/curves")
def list_curves(job_id: JobId, database: DatabaseDep) -> Curves:
    """Every trial's figures by epoch, by number: what the event stream would tell, in a fiftieth of the time."""
    with database.reading() as session:
        sequence = session.scalar(select(col(Job.sequence)).where(col(Job.id) == job_id))
        if sequence is None:
            raise NotFound("there is no such job; GET /jobs lists them")
        found = {"sequence": sequence, "curves": _curves(session, job_id)}
    # The declared type is what this is; twenty thousand epochs need not be looked at again by pydantic.
    return cast("Curves", Response(orjson.dumps(found), media_type="application/json"))


def _curves(session: Session, job_id: str) -> list[dict[str, Any]]:
    figures = [getattr(Measurement, name) for name in FIGURES]
    rows = session.execute(
        select(col(Trial.number), col(Measurement.step), *figures)
        .join(Trial, col(Trial.id) == Measurement.trial_id)
        .where(col(Trial.job_id) == job_id)
        .order_by(col(Trial.number), col(Measurement.step))
    )
    return [_curve(number, list(of_one)) for number, of_one in groupby(rows, key=lambda row: row.number)]


def _curve(number: int, rows: list[Any]) -> dict[str, Any]:
    _, steps, *columns = zip(*rows, strict=True)
    return {"number": number, "epoch": [epochs_of(step) for step in steps], **dict(zip(FIGURES, columns, strict=True))}
