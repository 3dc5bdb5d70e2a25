"""An application that answers some paths before the framework sees them."""

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send


class PlainFirst(FastAPI):
    """FastAPI, with ASGI applications in front of it that answer one path each.

    FastAPI's own work for a request (telemetry, middleware, routing) takes as long as a small network and all of
    `/predict` together.
    """

    plain: dict[str, ASGIApp] = {}  # noqa: RUF012 each application has its own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with the path's own application, or with the framework."""
        plain = self.plain.get(scope["path"]) if scope["type"] == "http" else None
        scope["app"] = self  # as Starlette does, for code that needs the request's application
        await (plain or super().__call__)(scope, receive, send)
