"""An application of which some paths are answered before the framework."""

from fastapi import FastAPI
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import answer_to


class PlainFirst(FastAPI):
    """FastAPI, with ASGI applications that answer one path each before it.

    What it does for a request, its telemetry, middleware and routing, takes as long as a small network and all of
    `/predict` together.
    """

    plain: dict[str, ASGIApp] = {}  # noqa: RUF012 each application has its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, with a problem where something is wrong."""
        plain = self.plain.get(scope["path"]) if scope["type"] == "http" else None
        if plain is None:
            await super().__call__(scope, receive, send)
            return
        try:
            await plain(scope, receive, send)
        except Exception as error:  # the boundary of a request, as Starlette's own is of all others
            await answer_to(Request(scope), error)(scope, receive, send)
