"""Pages by cursor: a page continues after the last row of the previous one, even if rows were added since."""

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from fastapi import Query, Request, Response
from sqlalchemy import ColumnElement, Select, String, and_, or_
from sqlalchemy.orm import Session
from sqlmodel import AutoString

from api.http.errors import BadInput

Limit = Annotated[int, Query(ge=1, le=1000, description="rows per page")]
Cursor = Annotated[str | None, Query(max_length=2000, description="next_cursor of the previous page")]


@dataclass(frozen=True)
class RowOrder:
    """An order of rows: by `key`, with null last, then by `tie`; both are selected with each row."""

    name: str  # in the query
    key: Any  # a column, or an expression of one
    tie: Any
    descending: bool


@dataclass(frozen=True)
class RowPage:
    """Some rows, and the cursor of the next page; None on the last page."""

    rows: list[Any]
    next_cursor: str | None


def page_of(session: Session, statement: Select[Any], order: RowOrder, limit: int, cursor: str | None) -> RowPage:
    """Return `limit` rows of `statement` after `cursor`.

    Raises:
        BadInput: if the cursor belongs to another list or order.
    """
    statement = statement.add_columns(order.key.label("page_key"), order.tie.label("page_tie"))
    if cursor is not None:
        statement = statement.where(_after(order, *_decode(cursor, order)))
    by_key = order.key.desc() if order.descending else order.key.asc()
    rows = session.execute(statement.order_by(order.key.is_(None), by_key, order.tie).limit(limit + 1)).all()
    more = len(rows) > limit
    rows = rows[:limit]
    following = _encode(order, rows[-1].page_key, rows[-1].page_tie) if more else None
    return RowPage([row[0] for row in rows], following)


def link_next(request: Request, response: Response, page: RowPage) -> None:
    """Name the next page in a Link header too (RFC 8288)."""
    if page.next_cursor is not None:
        following = request.url.include_query_params(cursor=page.next_cursor)
        response.headers["Link"] = f'<{following.path}?{following.query}>; rel="next"'


def _after(order: RowOrder, key: Any, tie: Any) -> ColumnElement[bool]:
    if key is None:
        return and_(order.key.is_(None), order.tie > tie)
    beyond = order.key < key if order.descending else order.key > key
    return or_(beyond, and_(order.key == key, order.tie > tie), order.key.is_(None))


def _encode(order: RowOrder, key: Any, tie: Any) -> str:
    return base64.urlsafe_b64encode(orjson.dumps([_sign(order), key, tie])).decode().rstrip("=")


def _decode(cursor: str, order: RowOrder) -> tuple[Any, Any]:
    try:
        sign, key, tie = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, TypeError, binascii.Error):
        sign = key = tie = None
    if sign != _sign(order) or not (key is None or _fits(order.key, key)) or not _fits(order.tie, tie):
        raise BadInput("?cursor", "not a cursor of this list and order; begin without one")
    return key, tie


def _fits(column: Any, value: Any) -> bool:
    """Return whether a value of a client can be compared with a column."""
    if isinstance(column.type, String | AutoString):
        return isinstance(value, str) and "\0" not in value
    whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63 - 1
    return whole or isinstance(value, float)


def _sign(order: RowOrder) -> str:
    return f"{'-' if order.descending else ''}{order.name}"
