"""Readers of event streams that stop reading: cut off, so that none holds memory or the process's end, and let go."""

from asyncio import WriteTransport
from collections.abc import Callable

import structlog
from anyio import BrokenResourceError, CancelScope, current_time, move_on_after
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SEND_SECONDS = 10.0  # how long a client may leave an event untaken
LAST_SECONDS = 1.0  # the same, while the process ends

log = structlog.get_logger()


class SlowReaders:
    """Cuts the connection of an event stream whose client takes nothing for SEND_SECONDS."""

    def __init__(self) -> None:
        self._seconds = SEND_SECONDS
        self._sending: set[CancelScope] = set()

    def hurry(self) -> None:
        """Give everybody only LAST_SECONDS from now on."""
        self._seconds = LAST_SECONDS
        for patience in self._sending:
            patience.deadline = min(patience.deadline, current_time() + LAST_SECONDS)

    def around(self, app: ASGIApp) -> ASGIApp:
        """The application, with a limit on what it sends."""

        async def limited(scope: Scope, receive: Receive, send: Send) -> None:
            transport = getattr(getattr(send, "__self__", None), "transport", None)  # uvicorn's; another passes
            await app(scope, receive, send if transport is None else self._limited(send, transport))

        return limited

    def _limited(self, send: Send, transport: WriteTransport) -> Send:
        """A server's `send` that cuts the connection where an event is not taken in time."""
        stream = False

        async def send_in_time(message: Message) -> None:
            nonlocal stream
            if message["type"] == "http.response.start" and _is_event_stream(message):
                stream = True
                # Or 64 KiB would lie in this process for a client that never asks for them, and nobody would notice.
                transport.set_write_buffer_limits(high=0)
            if not stream:
                await send(message)
            elif not await self._sent(send, message):
                log.info("cut off a client that does not read", seconds=self._seconds)
                transport.abort()  # to the application it is one that went away

        return send_in_time

    async def _sent(self, send: Send, message: Message) -> bool:
        """Send in time; False where there was not enough."""
        with move_on_after(self._seconds) as patience:
            self._sending.add(patience)
            try:
                await send(message)
            finally:
                self._sending.discard(patience)
        return not patience.cancelled_caught


class Departures:
    """Lets readers go who leave while events wait for them; FastAPI 0.165 takes that for an error of the application.

    It closes what its keep-alive task writes to before it ends that task (its discussion 15725).
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on, and everything back but that."""
        try:
            await self.app(scope, receive, send)
        except* BrokenResourceError:
            log.debug("a reader left while events waited for it")


def put_before(app: FastAPI, first: Callable[[ASGIApp], ASGIApp]) -> None:
    """Let a middleware stand before all others and Starlette's own: only there is `send` the server's own.

    Further in, an error would have the server close the connection politely, which waits for a client that reads.
    """
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: first(build())  # type: ignore[method-assign]


def _is_event_stream(start: Message) -> bool:
    return Headers(raw=start["headers"]).get("content-type", "").startswith("text/event-stream")
