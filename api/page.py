"""The web page at `/`, files of its own under a strict policy, and `/docs`, which asks no other host either."""

from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FILES = Path(__file__).parent / "web"

# Nothing but this service's own files, and pictures that the page itself draws.
POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "connect-src": "'self'",
    "frame-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
}
DOCS_POLICY = {**POLICY, "style-src": "'self' 'unsafe-inline'"}  # Swagger UI writes styles into its elements


class PageFiles(StaticFiles):
    """Files with a policy; ETag and 304 are Starlette's."""

    def __init__(self, directory: Path, policy: dict[str, str]) -> None:
        super().__init__(directory=directory)
        self._headers = {
            "Content-Security-Policy": "; ".join(f"{what} {whence}" for what, whence in policy.items()),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",  # kept, and asked for by ETag: a new release shows at the next look
        }

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer for one file."""
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


def add_page(app: FastAPI) -> None:
    """Serve the page and the documentation of the API."""
    files, docs = PageFiles(FILES, POLICY), PageFiles(FILES, DOCS_POLICY)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    @app.get("/docs", include_in_schema=False)
    async def documentation(request: Request) -> Response:
        return await docs.get_response("docs.html", request.scope)

    app.mount("/web", files, name="web")
    app.mount("/docs/files", PageFiles(_swagger_ui(), DOCS_POLICY), name="swagger-ui")


def _swagger_ui() -> Path:
    """Where the installed package that carries Swagger UI has it; it is not imported."""
    found = find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("Swagger UI is not installed; pip install fastapi-offline, which brings it")
    return Path(found.origin).parent / "static"
