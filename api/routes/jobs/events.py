"""A job's events as they happen."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Any, cast

from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse
from pydantic import BeforeValidator

from api.deps import StreamsDep
from api.http.errors import NothingMore
from api.views.jobs import JobId
from api.views.schemas import Happening
from api.views.streams import EventPage, Watched

router = APIRouter(prefix="/jobs", tags=["jobs"])

ENDED: dict[int | str, dict[str, Any]] = {
    204: {"description": "The job has ended, and nothing came after this event; a browser then stops asking"}
}


def _an_event_id(text: object) -> object:
    if isinstance(text, str) and not re.fullmatch("[0-9]{1,18}", text):  # pydantic would take 1_0 and 1.0 too
        raise ValueError("an event's id is a whole number: 0, or one that this stream has sent")
    return text


EventId = Annotated[int, BeforeValidator(_an_event_id)]
After = Annotated[EventId, Query(description="the id of the last event that is known already")]
LastEventId = Annotated[
    EventId | None, Header(alias="Last-Event-ID", description="the same, as browsers send it; stands above the query")
]


@dataclass(frozen=True)
class OpenedStream:
    """A stream whose first page is known, so that errors can still be answered."""

    watched: Watched
    page: EventPage


async def _opened(
    job_id: JobId, streams: StreamsDep, after: After = 0, last_event_id: LastEventId = None
) -> AsyncIterator[OpenedStream]:
    with streams.watching(job_id) as watched:
        page = await watched.read(after if last_event_id is None else last_event_id)
        if page.last and not page.events:
            raise NothingMore
        yield OpenedStream(watched, page)


@router.get("/{job_id}/events", response_class=EventSourceResponse, responses=ENDED)
async def stream_events(
    opened: Annotated[OpenedStream, Depends(_opened)], streams: StreamsDep
) -> AsyncIterator[Happening]:
    """What happened to a job and its trials, and what happens until it ends, as server-sent events.

    Their names are `job`, `trial` and `epoch`; their ids are the job's own counter, so that a stream which broke goes
    on after `Last-Event-ID`.
    """
    async for event in streams.events(opened.watched, opened.page):
        # The declared type is that of an event's data; the event around it has the name and the id.
        yield cast("Happening", event)
