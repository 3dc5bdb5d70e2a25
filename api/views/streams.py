"""Event streams: a job's events page by page, and one follower a process that wakes the streams that wait for more."""

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
from api.views.schemas import EpochEvent, Happening, JobEvent, MeasurementPublic, TrialEvent
from worker.database.clock import to_datetime
from worker.database.engine import Database
from worker.database.tables import Event, Job, JobState, Measurement, Trial
from worker.errors import NotFound

LOOK_SECONDS = 0.5  # how long an event may wait until it is sent
PAGE = 500  # events read at a time
MAX_STREAMS = 500  # a process; half of the 1,024 files that one may usually open

log = structlog.get_logger()


@dataclass(frozen=True)
class EventPage:
    """Some events of a job."""

    events: tuple[ServerSentEvent, ...]
    sequence: int  # the number of the job's counter up to which they are all
    more: bool  # whether others were there already
    final: bool  # whether the job had ended

    @property
    def last(self) -> bool:
        """Whether no page will follow, unless the job goes on."""
        return self.final and not self.more


class Watched:
    """A job that streams of this process watch."""

    def __init__(self, database: Database, job_id: str) -> None:
        self.streams = 0
        self._database, self._job_id = database, job_id
        self.sequence = 0  # the number that the job's counter has reached, as far as this process knows
        self._woken = anyio.Event()
        self._reading = anyio.Lock()
        self._read: tuple[int, EventPage] | None = None  # what was read last, and after which number

    def advance(self, sequence: int) -> None:
        """Note where the job's counter stands, and wake the streams if it went on."""
        if sequence > self.sequence:
            self.sequence = sequence
            self.wake()

    def wake(self) -> None:
        """Let every stream that waits look around."""
        self._woken.set()
        self._woken = anyio.Event()

    async def woken(self) -> None:
        """Wait until somebody wakes the streams."""
        await self._woken.wait()

    async def read(self, after: int) -> EventPage:
        """The events after a number, as they are now; NotFound where there is no such job."""
        page = await run_sync(_page, self._database, self._job_id, after)
        self.advance(page.sequence)
        return page

    async def share(self, after: int) -> EventPage:
        """The events after a number; streams that have come equally far share one reading."""
        async with self._reading:
            if self._read is not None:
                read_after, page = self._read
                if read_after == after and (page.more or page.sequence >= self.sequence):
                    return page
            page = await self.read(after)
            self._read = (after, page)
            return page


class Streams:
    """The streams of this process."""

    def __init__(self, database: Database) -> None:
        self.stopping = False
        self.open = 0
        self._database = database
        self._watched: dict[str, Watched] = {}
        self._somebody = anyio.Event()  # set while there is a stream

    @contextmanager
    def watching(self, job_id: str) -> Iterator[Watched]:
        """A job, watched by one stream more; TooManyStreams where that is one too many."""
        if self.open >= MAX_STREAMS:
            raise TooManyStreams(f"{MAX_STREAMS} event streams are open already; close some, or start another API")
        watched = self._watched.setdefault(job_id, Watched(self._database, job_id))
        watched.streams += 1
        self.open += 1
        self._somebody.set()
        try:
            yield watched
        finally:
            watched.streams -= 1
            self.open -= 1
            if not watched.streams:
                del self._watched[job_id]
            if not self._watched:
                self._somebody = anyio.Event()

    async def events(self, watched: Watched, page: EventPage) -> AsyncIterator[ServerSentEvent]:
        """The events of a page and all that follow, until the job has ended or this process is to stop."""
        while not self.stopping:
            for event in page.events:
                yield event
            if page.last:
                return
            page = await self._next(watched, page)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the watched jobs for as long as the application lives."""
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
        """The page after this one, once there is something on it; the stream stays while the database is away."""
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
            await self._somebody.wait()
            try:
                counters = await run_sync(_counters, self._database, list(self._watched))
            except Exception as error:  # the boundary of a task: the database may be away; the streams wait
                log.warning("could not look for events", error=str(error))
            else:
                self._advance(counters)
            await anyio.sleep(LOOK_SECONDS)

    def _advance(self, counters: dict[str, int]) -> None:
        for job_id, sequence in counters.items():
            if job_id in self._watched:
                self._watched[job_id].advance(sequence)


def _counters(database: Database, job_ids: list[str]) -> dict[str, int]:
    """Where the counters of jobs stand. It tells of ends too: whatever changes a job's state raises its counter."""
    with database.reading() as session:
        rows = session.execute(select(col(Job.id), col(Job.sequence)).where(col(Job.id).in_(job_ids)))
        return {row.id: row.sequence for row in rows}


def _page(database: Database, job_id: str, after: int) -> EventPage:
    """The events of a job after a number of its counter."""
    with database.reading() as session:
        job = session.execute(select(col(Job.sequence), col(Job.state)).where(col(Job.id) == job_id)).one_or_none()
        if job is None:
            raise NotFound("there is no such job; GET /jobs lists them")
        # No further than the counter stood: what is committed between one query and the next is for the next page.
        found = [*_transitions(session, job_id, after, job.sequence), *_epochs(session, job_id, after, job.sequence)]
    found.sort(key=lambda numbered: numbered[0])
    more = len(found) > PAGE
    events = tuple(_event(sequence, happening) for sequence, happening in found[:PAGE])
    return EventPage(events, found[PAGE - 1][0] if more else job.sequence, more, JobState(job.state).final)


def _transitions(session: Session, job_id: str, after: int, to: int) -> Iterator[tuple[int, Happening]]:
    """The transitions of a job and its trials between two numbers, one more than a page has."""
    between = (col(Event.job_id) == job_id, col(Event.sequence) > after, col(Event.sequence) <= to)
    for row in session.scalars(select(Event).where(*between).order_by(col(Event.sequence)).limit(PAGE + 1)):
        told = {"state": row.state, "detail": row.detail, "by": row.by, "at": to_datetime(row.at)}
        yield row.sequence, JobEvent(**told) if row.trial is None else TrialEvent(number=row.trial, **told)


def _epochs(session: Session, job_id: str, after: int, to: int) -> Iterator[tuple[int, Happening]]:
    """The epochs that a job's trials have measured between two numbers, one more than a page has."""
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


def _event(sequence: int, happening: Happening) -> ServerSentEvent:
    """An event as it is sent. Its data is JSON already, for streams that share a page."""
    return ServerSentEvent(id=str(sequence), event=happening.event_name, raw_data=happening.model_dump_json())
