"""Champions: promote a version, roll back, and list past moves."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy import select
from sqlmodel import Session, col

from api.deps import DatabaseDep, RegistryDep, RosterDep
from api.http.paging import Cursor, Limit, RowOrder, link_next, page_of
from api.views.versions import (
    ChampionPublic,
    DatasetName,
    ModelName,
    MovePage,
    MovePublic,
    Promotion,
    Rollback,
    unpublished,
)
from worker.database.tables import ChampionMove, ModelVersion
from worker.ledger.champions import moves

router = APIRouter(prefix="/models/{model}/champion", tags=["models"])


@router.put("")
def promote(model: ModelName, promotion: Promotion, registry: RegistryDep, roster: RosterDep) -> ChampionPublic:
    """Make a version the champion for the data set that it was trained on.

    Promoting the current champion changes nothing.
    """
    moved = ChampionPublic.of(*registry.promote(model, promotion.dataset, promotion.version, promotion.reason))
    roster.catch_up()  # this process serves the new champion at once; other processes follow within 2 seconds
    return moved


@router.post("/rollback")
def rollback(model: ModelName, registry: RegistryDep, roster: RosterDep, of: Rollback | None = None) -> ChampionPublic:
    """Undo the last move of a champion. Each further call undoes one more move, back to the first version."""
    moved = ChampionPublic.of(*registry.rollback(model, of.dataset if of else None))
    roster.catch_up()
    return moved


@router.get("/moves")
def list_moves(
    model: ModelName,
    request: Request,
    response: Response,
    database: DatabaseDep,
    dataset: Annotated[DatasetName | None, Query(description="only moves of the champion for this data set")] = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> MovePage:
    """List the moves of a network's champions, newest first: both versions, cause and reason."""
    order = RowOrder("id", col(ChampionMove.id), col(ChampionMove.id), descending=True)
    with database.reading() as session:
        numbers = _numbers(session, model)
        page = page_of(session, moves(model, dataset), order, limit, cursor)
    link_next(request, response, page)
    return MovePage(items=[MovePublic.of(move, numbers) for move in page.rows], next_cursor=page.next_cursor)


def _numbers(session: Session, model: str) -> dict[int | None, int]:
    """Return the version numbers of a network by row id.

    Raises:
        NotFound: if the network has no published version.

    """
    of_model = col(ModelVersion.model) == model
    numbers = dict(session.execute(select(col(ModelVersion.id), col(ModelVersion.version)).where(of_model)).all())
    if not numbers:
        raise unpublished()
    return numbers
