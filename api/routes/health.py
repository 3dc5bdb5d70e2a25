"""Liveness, readiness and metrics."""

from fastapi import APIRouter, HTTPException, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlmodel import col

from api.deps import DatabaseDep, RosterDep
from api.prediction.exposition import exposition
from worker.database.tables import Job
from worker.supervision.notify import broker_answers

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process is alive."""

    status: str = "alive"


class Ready(BaseModel):
    """The state of this API: its broker and its models."""

    status: str = "ready"
    broker: bool  # false if the broker does not answer; workers then find jobs a few seconds later
    models: list[str]  # "network/data set" of each model that /predict serves
    failing: dict[str, str]  # "network/data set" to why its champion failed to load; the previous one stays in service


@router.get("/livez")
async def livez() -> Alive:  # runs on the event loop: all threads may be waiting for storage
    """Return 200 while the process answers; check nothing else."""
    return Alive()


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(roster: RosterDep) -> Response:
    """Return the metrics of prediction in Prometheus text format."""
    return Response(exposition(roster.champions()), media_type=CONTENT_TYPE_LATEST)


@router.get("/readyz")
def readyz(database: DatabaseDep, roster: RosterDep) -> Ready:
    """Return 200 if jobs can be accepted, 503 while the database does not answer."""
    with database.reading() as session:
        try:
            session.execute(select(col(Job.id)).limit(1))
        except DBAPIError as error:
            if isinstance(error, OperationalError) and "no such table" not in str(error):
                raise
            raise HTTPException(503, "the database has no tables; run `chiffre migrate`") from error
    served = sorted(f"{s.version.model}/{s.version.dataset}" for s in roster.champions())
    return Ready(broker=broker_answers(), models=served, failing=roster.failing())
