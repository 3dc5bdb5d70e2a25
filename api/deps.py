"""What routes depend on, as nouns."""

import hashlib
from typing import Annotated

from fastapi import Depends, Header, Request

from api.serving import Roster
from api.streams import Streams
from worker.controls import Controls
from worker.db import Database
from worker.ledger import Ledger
from worker.once import Once
from worker.registry import Registry
from worker.store import Store


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _ledger(database: Annotated[Database, Depends(_database)]) -> Ledger:
    return Ledger(database)


def _controls(database: Annotated[Database, Depends(_database)]) -> Controls:
    return Controls(database)


def _registry(database: Annotated[Database, Depends(_database)]) -> Registry:
    return Registry(database)


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


async def _once(
    request: Request,
    idempotency_key: Annotated[
        str | None,
        Header(
            min_length=1,
            max_length=200,
            pattern=r"^[\x21-\x7e]+$",
            description="any text of your own: the same request with the same key creates nothing more, for a day",
        ),
    ] = None,
) -> Once | None:
    if idempotency_key is None:
        return None
    parts = (request.method.encode(), request.url.path.encode(), await request.body())
    return Once(idempotency_key, hashlib.sha256(b"\0".join(parts)).hexdigest())


def _roster(request: Request) -> Roster:
    roster: Roster = request.app.state.roster
    return roster


def _streams(request: Request) -> Streams:
    streams: Streams = request.app.state.streams
    return streams


DatabaseDep = Annotated[Database, Depends(_database)]
LedgerDep = Annotated[Ledger, Depends(_ledger)]
ControlsDep = Annotated[Controls, Depends(_controls)]
RegistryDep = Annotated[Registry, Depends(_registry)]
StoreDep = Annotated[Store, Depends(_store)]
OnceDep = Annotated[Once | None, Depends(_once)]
RosterDep = Annotated[Roster, Depends(_roster)]
StreamsDep = Annotated[Streams, Depends(_streams)]
