"""An application of which some paths are answered before the framework."""

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send


class PlainFirst(FastAPI):
    """FastAPI, with ASGI applications that answer one path each before it.

    What it does for a request, its telemetry, middleware and routing, takes as long as a small network and all of
    `/predict` together.
    """

    plain: dict[str, ASGIApp] = {}  # noqa: RUF012 each application has its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or let the framework do so."""
        plain = self.plain.get(scope["path"]) if scope["type"] == "http" else None
        scope["app"] = self  # as Starlette does, for what looks at the application that a request belongs to
        await (plain or super().__call__)(scope, receive, send)
