"""The dependencies of routes, as nouns."""

import hashlib
from collections.abc import AsyncIterator
from typing import IO, Annotated

from fastapi import Depends, Header, Request

from api.inputs.specs import TrainBody, TuneBody, checked
from api.inputs.uploads import BodyBudget, refuse_compressed
from api.prediction.roster import Roster
from api.subprocesses.analyses import Analyses
from api.subprocesses.children import Children
from api.subprocesses.image_looks import Looks
from api.views.streams import Streams
from ml.specs import TrainSpec, TuneSpec
from ml.tuning.effects import check_effects
from worker.artifacts.store import Store
from worker.database.engine import Database
from worker.ledger.champions import Champions
from worker.ledger.idempotency import Once
from worker.ledger.ledger import Ledger
from worker.ledger.requests import Controls
from worker.prediction.rows import PredictionRows
from worker.uploaded_datasets import DatasetStore


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _ledger(database: Annotated[Database, Depends(_database)]) -> Ledger:
    return Ledger(database)


def _controls(database: Annotated[Database, Depends(_database)]) -> Controls:
    return Controls(database)


def _registry(database: Annotated[Database, Depends(_database)]) -> Champions:
    return Champions(database)


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern=r"^[\x21-\x7e]+$",
        description="any text: for a day, the same request with the same key creates nothing new",
    ),
]


async def _once(request: Request, idempotency_key: IdempotencyKey = None) -> Once | None:
    return None if idempotency_key is None else _once_for(request, idempotency_key, await request.body())


async def _images(request: Request) -> AsyncIterator[bytes]:
    bodies: BodyBudget = request.app.state.image_bodies
    async with bodies.body(request) as body:
        yield body


ImagesDep = Annotated[bytes, Depends(_images)]


async def _inference_body(request: Request) -> AsyncIterator[bytes]:
    refuse_compressed(request)
    bodies: BodyBudget = request.app.state.inference_bodies
    async with bodies.body(request) as body:
        yield body


# Scope "function": a body is no longer counted while the client receives its answer.
AskedDep = Annotated[bytes, Depends(_inference_body, scope="function")]


async def _archive(request: Request) -> AsyncIterator[IO[bytes]]:
    archives: BodyBudget = request.app.state.archives
    async with archives.file(request) as file:
        yield file


def _uploaded(request: Request) -> DatasetStore:
    uploaded: DatasetStore = request.app.state.uploaded
    return uploaded


ArchiveDep = Annotated[IO[bytes], Depends(_archive)]
UploadedDep = Annotated[DatasetStore, Depends(_uploaded)]


async def _once_with_images(request: Request, body: ImagesDep, idempotency_key: IdempotencyKey = None) -> Once | None:
    return None if idempotency_key is None else _once_for(request, idempotency_key, body)


def _once_for(request: Request, key: str, body: bytes) -> Once:
    target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    parts = (request.method.encode(), target.encode(), body)
    return Once(key, hashlib.sha256(b"\0".join(parts)).hexdigest())


def _prediction_rows(database: Annotated[Database, Depends(_database)]) -> PredictionRows:
    return PredictionRows(database)


def _roster(request: Request) -> Roster:
    roster: Roster = request.app.state.roster
    return roster


def _children(request: Request) -> Children:
    children: Children = request.app.state.children
    return children


def _analyses(request: Request) -> Analyses:
    analyses: Analyses = request.app.state.analyses
    return analyses


def _looks(request: Request) -> Looks:
    looks: Looks = request.app.state.looks
    return looks


def _streams(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


def _train_spec(spec: TrainBody, database: Annotated[Database, Depends(_database)]) -> TrainSpec:
    return checked(TrainSpec, spec, database)


def _tune_spec(spec: TuneBody, database: Annotated[Database, Depends(_database)]) -> TuneSpec:
    posted = checked(TuneSpec, spec, database)
    check_effects(posted)
    return posted


DatabaseDep = Annotated[Database, Depends(_database)]
LedgerDep = Annotated[Ledger, Depends(_ledger)]
ControlsDep = Annotated[Controls, Depends(_controls)]
RegistryDep = Annotated[Champions, Depends(_registry)]
StoreDep = Annotated[Store, Depends(_store)]
OnceDep = Annotated[Once | None, Depends(_once)]
OnceOfImagesDep = Annotated[Once | None, Depends(_once_with_images)]
PredictingDep = Annotated[PredictionRows, Depends(_prediction_rows)]
RosterDep = Annotated[Roster, Depends(_roster)]
ChildrenDep = Annotated[Children, Depends(_children)]
AnalysesDep = Annotated[Analyses, Depends(_analyses)]
LooksDep = Annotated[Looks, Depends(_looks)]
StreamsDep = Annotated[Streams, Depends(_streams)]
TrainSpecDep = Annotated[TrainSpec, Depends(_train_spec)]
TuneSpecDep = Annotated[TuneSpec, Depends(_tune_spec)]
