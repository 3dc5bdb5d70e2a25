"""What routes depend on, as nouns."""

from typing import Annotated

from fastapi import Depends, Request

from api.serving import Roster
from worker.db import Database
from worker.ledger import Ledger


def _database(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


def _ledger(database: Annotated[Database, Depends(_database)]) -> Ledger:
    return Ledger(database)


def _roster(request: Request) -> Roster:
    roster: Roster = request.app.state.roster
    return roster


DatabaseDep = Annotated[Database, Depends(_database)]
LedgerDep = Annotated[Ledger, Depends(_ledger)]
RosterDep = Annotated[Roster, Depends(_roster)]
