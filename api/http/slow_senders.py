"""Clients that stop in the middle of a body: they are refused, so that what they sent is not held for ever."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SILENT_SECONDS = 60.0  # the longest until the next piece of a body, as common reverse proxies allow


class SlowSenders:
    """Answers 408 if part of a body has arrived and nothing more follows for SILENT_SECONDS."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, with a time limit for each further piece of its body."""
        await self.app(scope, _in_time(receive) if scope["type"] == "http" else receive, send)


def _in_time(receive: Receive) -> Receive:
    """Return a `receive` that raises HTTPException 408 if the body stops in the middle.

    The first piece has no timer: most bodies have one piece, and a timer would slow `/predict` down. Neither has a
    complete body, after which the only message is that the client has gone.
    """
    begun = False

    async def receive_in_time() -> Message:
        nonlocal begun
        message = await (_soon(receive) if begun else receive())
        begun = bool(message.get("more_body"))
        return message

    return receive_in_time


async def _soon(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(SILENT_SECONDS):
            return await receive()
    except TimeoutError:
        detail = f"no more of the body arrived for {SILENT_SECONDS:g} seconds; send it again"
        raise HTTPException(408, detail, {"Connection": "close"}) from None
