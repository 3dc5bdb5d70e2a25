"""Event streams: a job's events page by page, and one follower per process that wakes waiting streams."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import anyio
import structlog
from anyio.to_thread import run_sync
from fastapi.sse import ServerSentEvent
from sqlalchemy import select
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError
from sqlmodel import Session, col

from api.http.errors import TooManyStreams
from api.views.schemas import EpochEvent, EventData, JobEvent, MeasurementPublic, TrialEvent
from worker.database.clock import to_datetime
from worker.database.engine import Database
from worker.database.tables import Event, Job, JobState, Measurement, Trial
from worker.errors import Fact, NotFound

LOOK_SECONDS = 0.5  # between two looks for new events; the longest that an event waits
PAGE = 500  # events read at a time
MAX_STREAMS = 500  # per process: half of the 1,024 files that a process may usually open

log = structlog.get_logger()


@dataclass(frozen=True)
class EventPage:
    """A page of a job's events."""

    events: tuple[ServerSentEvent, ...]
    sequence: int  # value of the job's counter that the page is complete up to
    more: bool  # true if later events existed when the page was read
    final: bool  # true if the job had ended

    @property
    def last(self) -> bool:
        """True if no page follows, unless the job is restarted."""
        return self.final and not self.more


class Watched:
    """A job that one or more streams of this process watch."""

    def __init__(self, database: Database, job_id: str) -> None:
        self.streams = 0
        self._database, self._job_id = database, job_id
        self.sequence = 0  # last known value of the job's counter
        self._woken = anyio.Event()
        self._reading = anyio.Lock()
        self._read: tuple[int, EventPage] | None = None  # the last page, and the number after which it starts

    def advance(self, sequence: int) -> None:
        """Store the value of the job's counter, and wake the streams if it grew."""
        if sequence > self.sequence:
            self.sequence = sequence
            self.wake()

    def wake(self) -> None:
        """Wake every waiting stream."""
        self._woken.set()
        self._woken = anyio.Event()

    async def woken(self) -> None:
        """Wait until the streams are woken."""
        await self._woken.wait()

    async def read(self, after: int) -> EventPage:
        """Read the events after a number of the job's counter.

        Raises:
            NotFound: if there is no such job.

        """
        page = await run_sync(_page, self._database, self._job_id, after)
        self.advance(page.sequence)
        return page

    async def share(self, after: int) -> EventPage:
        """Return the events after a number; streams at the same position share one read."""
        async with self._reading:
            if self._read is not None:
                read_after, page = self._read
                if read_after == after and (page.more or page.sequence >= self.sequence):
                    return page
            page = await self.read(after)
            self._read = (after, page)
            return page


class Streams:
    """All event streams of this process."""

    def __init__(self, database: Database) -> None:
        self.stopping = False
        self.open = 0
        self._database = database
        self._watched: dict[str, Watched] = {}
        self._has_streams = anyio.Event()  # set while at least one stream is open

    @contextmanager
    def watching(self, job_id: str) -> Iterator[Watched]:
        """Register a stream that watches a job, for as long as the context lasts.

        Raises:
            TooManyStreams: if this process has `MAX_STREAMS` open streams.

        """
        if self.open >= MAX_STREAMS:
            raise TooManyStreams(f"{MAX_STREAMS} event streams are open, the maximum; close some or start another API")
        watched = self._watched.setdefault(job_id, Watched(self._database, job_id))
        watched.streams += 1
        self.open += 1
        self._has_streams.set()
        try:
            yield watched
        finally:
            watched.streams -= 1
            self.open -= 1
            if not watched.streams:
                del self._watched[job_id]
            if not self._watched:
                self._has_streams = anyio.Event()

    async def events(self, watched: Watched, page: EventPage) -> AsyncIterator[ServerSentEvent]:
        """Yield the events of a page and all that follow, until the job has ended or this process stops."""
        while not self.stopping:
            for event in page.events:
                yield event
            if page.last:
                return
            page = await self._next(watched, page)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Look for new events of the watched jobs for as long as the context lasts."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            yield
            self.stop()
            tasks.cancel_scope.cancel()

    def stop(self) -> None:
        """End all streams."""
        self.stopping = True
        for watched in self._watched.values():
            watched.wake()

    async def _next(self, watched: Watched, page: EventPage) -> EventPage:
        """Return the next page once it has events. While the database does not answer, keep the stream open and retry.

        Returns:
            The page passed in, if this process is stopping.

        """
        while not self.stopping:
            if not page.more and watched.sequence <= page.sequence:
                await watched.woken()
                continue
            try:
                return await watched.share(page.sequence)
            except (OperationalError, InterfaceError, TimeoutError) as error:
                log.warning("could not read events", error=str(error))
                await anyio.sleep(LOOK_SECONDS)
        return page

    async def _follow(self) -> None:
        while True:
            await self._has_streams.wait()
            try:
                counters = await run_sync(_counters, self._database, list(self._watched))
            except Exception as error:  # the boundary of a task: if the database is away, the streams wait
                log.warning("could not look for events", error=str(error))
            else:
                self._advance(counters)
            await anyio.sleep(LOOK_SECONDS)

    def _advance(self, counters: dict[str, int]) -> None:
        for job_id, sequence in counters.items():
            if job_id in self._watched:
                self._watched[job_id].advance(sequence)


def _counters(database: Database, job_ids: list[str]) -> dict[str, int]:
    """Return the event counters of jobs by id. Every change of a job's state raises its counter, including its end."""
    with database.reading() as session:
        rows = session.execute(select(col(Job.id), col(Job.sequence)).where(col(Job.id).in_(job_ids)))
        return {row.id: row.sequence for row in rows}


def _page(database: Database, job_id: str, after: int) -> EventPage:
    """Read a page of a job's events after a number of its counter.

    Raises:
        NotFound: if there is no such job.

    """
    with database.reading() as session:
        job = session.execute(select(col(Job.sequence), col(Job.state)).where(col(Job.id) == job_id)).one_or_none()
        if job is None:
            raise NotFound("there is no such job", Fact.NO_JOB)
        # Read up to the counter only: events committed between two queries belong to the next page.
        found = [*_transitions(session, job_id, after, job.sequence), *_epochs(session, job_id, after, job.sequence)]
    found.sort(key=lambda numbered: numbered[0])
    more = len(found) > PAGE
    events = tuple(_event(sequence, data) for sequence, data in found[:PAGE])
    return EventPage(events, found[PAGE - 1][0] if more else job.sequence, more, JobState(job.state).final)


def _transitions(session: Session, job_id: str, after: int, to: int) -> Iterator[tuple[int, EventData]]:
    """Yield transitions of a job and its trials in (after, to], at most one more than fits a page."""
    between = (col(Event.job_id) == job_id, col(Event.sequence) > after, col(Event.sequence) <= to)
    for row in session.scalars(select(Event).where(*between).order_by(col(Event.sequence)).limit(PAGE + 1)):
        fields = {"state": row.state, "detail": row.detail, "by": row.by, "at": to_datetime(row.at)}
        yield row.sequence, JobEvent(**fields) if row.trial is None else TrialEvent(number=row.trial, **fields)


def _epochs(session: Session, job_id: str, after: int, to: int) -> Iterator[tuple[int, EventData]]:
    """Yield measurements of a job's trials in (after, to], at most one more than fits a page."""
    between = (col(Measurement.job_id) == job_id, col(Measurement.sequence) > after, col(Measurement.sequence) <= to)
    rows = session.execute(
        select(col(Trial.number), Measurement)
        .join(Trial, col(Trial.id) == Measurement.trial_id)
        .where(*between)
        .order_by(col(Measurement.sequence))
        .limit(PAGE + 1)
    )
    for number, row in rows:
        yield row.sequence, EpochEvent(number=number, **MeasurementPublic.of(row).model_dump())


def _event(sequence: int, data: EventData) -> ServerSentEvent:
    """Return an event to send. Its data is encoded once, because streams share pages."""
    return ServerSentEvent(id=str(sequence), event=data.event_name, raw_data=data.model_dump_json())
