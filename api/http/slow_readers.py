"""Clients of event streams that stop reading: they are cut off, so that they hold neither memory nor shutdown."""

from asyncio import WriteTransport
from collections.abc import Callable

import structlog
from anyio import BrokenResourceError, CancelScope, current_time, move_on_after
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SEND_SECONDS = 10.0  # the longest that a client may take to receive an event
LAST_SECONDS = 1.0  # the longest while the process ends

log = structlog.get_logger()


class SlowReaders:
    """Cuts the connection of an event stream whose client receives nothing for SEND_SECONDS."""

    def __init__(self) -> None:
        self._seconds = SEND_SECONDS
        self._sending: set[CancelScope] = set()

    def hurry(self) -> None:
        """Allow all clients only LAST_SECONDS from now on."""
        self._seconds = LAST_SECONDS
        for scope in self._sending:
            scope.deadline = min(scope.deadline, current_time() + LAST_SECONDS)

    def around(self, app: ASGIApp) -> ASGIApp:
        """Wrap an application so that its event streams are limited."""

        async def limited(scope: Scope, receive: Receive, send: Send) -> None:
            transport = getattr(
                getattr(send, "__self__", None), "transport", None
            )  # of uvicorn; other servers have none
            await app(scope, receive, send if transport is None else self._limited(send, transport))

        return limited

    def _limited(self, send: Send, transport: WriteTransport) -> Send:
        """Return a `send` that cuts the connection if an event is not received in time."""
        stream = False

        async def send_in_time(message: Message) -> None:
            nonlocal stream
            if message["type"] == "http.response.start" and _is_event_stream(message):
                stream = True
                # Otherwise up to 64 KiB would be buffered here for a client that never reads, unnoticed.
                transport.set_write_buffer_limits(high=0)
            if not stream:
                await send(message)
            elif not await self._sent(send, message):
                log.info("cut off a client that does not read", seconds=self._seconds)
                transport.abort()  # to the application, the client has gone

        return send_in_time

    async def _sent(self, send: Send, message: Message) -> bool:
        """Send a message; return False if the client did not receive it in time."""
        with move_on_after(self._seconds) as scope:
            self._sending.add(scope)
            try:
                await send(message)
            finally:
                self._sending.discard(scope)
        return not scope.cancelled_caught


class Departures:
    """Ignores the error that FastAPI 0.165 raises if a client leaves while events wait for it.

    FastAPI closes the stream that its keep-alive task writes to before it ends that task (FastAPI discussion 15725).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but that error."""
        try:
            await self.app(scope, receive, send)
        except* BrokenResourceError:
            log.debug("a client left while events waited for it")


def put_before(app: FastAPI, first: Callable[[ASGIApp], ASGIApp]) -> None:
    """Put a middleware in front of all others and of Starlette's own: only there is `send` the server's.

    Further in, an error would make the server close the connection in order, which waits for the client to read.
    """
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: first(build())  # type: ignore[method-assign]


def _is_event_stream(start: Message) -> bool:
    return Headers(raw=start["headers"]).get("content-type", "").startswith("text/event-stream")
