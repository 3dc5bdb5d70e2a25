"""Senders of bodies that fall silent: turned away, so that what they have sent is not held for ever."""

import asyncio

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SILENT_SECONDS = 60.0  # how long a client may take for the next piece of a body: that of common reverse proxies


class SlowSenders:
    """Answers 408 to a body of which nothing more comes for SILENT_SECONDS."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, with a limit on how long a piece of the body may take."""
        has_body = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS")
        await self.app(scope, _in_time(receive) if has_body else receive, send)


def _in_time(receive: Receive) -> Receive:
    """A server's `receive` that raises HTTPException where the body stops in the middle."""
    whole = False

    async def receive_in_time() -> Message:
        nonlocal whole
        if whole:  # what comes now is that the client has gone
            return await receive()
        try:
            async with asyncio.timeout(SILENT_SECONDS):
                message = await receive()
        except TimeoutError:
            detail = f"nothing more of the body came for {SILENT_SECONDS:g} seconds; send it again"
            raise HTTPException(408, detail, {"Connection": "close"}) from None
        whole = not message.get("more_body")
        return message

    return receive_in_time
