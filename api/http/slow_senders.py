"""Senders of bodies that fall silent: turned away, so that what they have sent is not held for ever."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SILENT_SECONDS = 60.0  # how long a client may take for the next piece of a body: that of common reverse proxies


class SlowSenders:
    """Answers 408 to a body of which a piece has come, and nothing more for SILENT_SECONDS."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with a limit on how long each further piece of the body may take."""
        await self.app(scope, _in_time(receive) if scope["type"] == "http" else receive, send)


def _in_time(receive: Receive) -> Receive:
    """A server's `receive` that raises HTTPException where the body stops in the middle.

    There is no timer for the first piece: most bodies are one, and `/predict` is not to pay for it. Nor is there one
    after a whole body: what follows is that the client has gone.
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
        detail = f"nothing more of the body came for {SILENT_SECONDS:g} seconds; send it again"
        raise HTTPException(408, detail, {"Connection": "close"}) from None
