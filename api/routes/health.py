"""Is it alive, is it ready."""

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
    """The process answers."""

    status: str = "alive"


class Ready(BaseModel):
    """What this API can do just now."""

    status: str = "ready"
    broker: bool  # without it workers find jobs a few seconds later
    models: list[str]  # "network/data set" that /predict answers for
    failing: dict[str, str]  # why a champion does not load, by "network/data set"; the one before it goes on


@router.get("/livez")
async def livez() -> Alive:  # waits for no thread: those may all wait for storage
    """Whether the process answers; looks at nothing else."""
    return Alive()


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(roster: RosterDep) -> Response:
    """The figures of prediction, for Prometheus."""
    return Response(exposition(roster.champions()), media_type=CONTENT_TYPE_LATEST)


@router.get("/readyz")
def readyz(database: DatabaseDep, roster: RosterDep) -> Ready:
    """Whether jobs can be accepted: 503 while the database does not answer."""
    with database.reading() as session:
        try:
            session.execute(select(col(Job.id)).limit(1))
        except DBAPIError as error:
            if isinstance(error, OperationalError) and "no such table" not in str(error):
                raise
            raise HTTPException(503, "the database has no tables; run `chiffre migrate`") from error
    served = sorted(f"{s.version.model}/{s.version.dataset}" for s in roster.champions())
    return Ready(broker=broker_answers(), models=served, failing=roster.failing())
