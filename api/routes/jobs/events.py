"""The event stream of a job."""

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
from api.views.schemas import EventData
from api.views.streams import EventPage, Watched

router = APIRouter(prefix="/jobs", tags=["jobs"])

ENDED: dict[int | str, dict[str, Any]] = {
    204: {"description": "The job has ended and no event follows this one; a browser then stops reconnecting"}
}


def _checked_event_id(text: object) -> object:
    if isinstance(text, str) and not re.fullmatch("[0-9]{1,18}", text):  # pydantic would accept 1_0 and 1.0 too
        raise ValueError("an event id is a whole number: 0, or an id that this stream has sent")
    return text


EventId = Annotated[int, BeforeValidator(_checked_event_id)]
After = Annotated[EventId, Query(description="id of the last event already received; 0 for all events")]
LastEventId = Annotated[
    EventId | None,
    Header(
        alias="Last-Event-ID",
        description="id of the last event already received, as browsers send it; overrides the query parameter",
    ),
]


@dataclass(frozen=True)
class OpenedStream:
    """A stream whose first page has been read, so that an error can still set the status of the answer."""

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
) -> AsyncIterator[EventData]:
    """Stream past and future events of a job and its trials as server-sent events, until the job ends.

    Event names are `job`, `trial` and `epoch`. Event ids count up within the job. To continue a broken stream, send
    the last id as `Last-Event-ID`.
    """
    async for event in streams.events(opened.watched, opened.page):
        # The declared type is that of the event's data. The event itself adds the name and the id.
        yield cast("EventData", event)
