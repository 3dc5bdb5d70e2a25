"""The page at `/`, the documentation at `/help`, and `/docs`: files under a strict policy that ask no other host."""

import re
from base64 import b64encode
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

FILES = Path(__file__).parent / "web"
HELP = Path(__file__).parent / "help"  # `make docs` builds it

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
# Swagger UI and the documentation's theme write styles into their elements.
DOCS_POLICY = {**POLICY, "style-src": "'self' 'unsafe-inline'"}

INLINE_SCRIPT = re.compile(rb"<script>(.+?)</script>", re.DOTALL)

NO_HELP = """<!doctype html>
<html lang="en">
<title>Chiffre help</title>
<h1>The documentation is not built</h1>
<p>Run <code>make docs</code> in Chiffre's checkout, then reload this page.
<p>The same text is in the folder <code>docs</code> of the checkout. <a href="/docs">/docs</a> describes every request.
"""


class PageFiles(StaticFiles):
    """Files with a policy; ETag and 304 are Starlette's."""

    def __init__(self, directory: Path, policy: dict[str, str]) -> None:
        super().__init__(directory=directory, check_dir=False)
        self._headers = {
            "Content-Security-Policy": as_header(policy),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-cache",  # kept, and asked for by ETag: a new release shows at the next look
        }

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer for one file."""
        response = await super().get_response(path, scope)
        response.headers.update(self._headers)
        return response


class HelpFiles(PageFiles):
    """The built documentation; each page's policy allows the inline scripts of this page by their hashes."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, DOCS_POLICY)
        self.folder = directory
        self.html = True  # a folder is answered with its index.html

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Answer for one file; a plain page says how to build the documentation if it is not built."""
        if not (self.folder / "index.html").is_file():
            return self._absent(path)
        response = await super().get_response(path, scope)
        if response.status_code == 404:  # the theme's own page for it expects to be at the root of a host
            raise HTTPException(404)
        page = self.folder / path
        page = page / "index.html" if page.is_dir() else page
        if page.suffix == ".html":  # of a 304 too: a browser replaces the policy that it kept
            response.headers["Content-Security-Policy"] = help_policy(await to_thread.run_sync(page.read_bytes))
        return response

    async def check_config(self) -> None:
        """Allow a folder that does not exist: it may be built while the API runs."""

    def _absent(self, path: str) -> Response:
        if path != ".":
            raise HTTPException(404)
        return HTMLResponse(NO_HELP, headers=self._headers)


def as_header(policy: dict[str, str]) -> str:
    """Return a policy as the Content-Security-Policy header spells it."""
    return "; ".join(f"{what} {whence}" for what, whence in policy.items())


def help_policy(page: bytes) -> str:
    """Return the policy of one page of the documentation: its inline scripts may run, and no others."""
    hashes = [b64encode(sha256(script).digest()).decode() for script in INLINE_SCRIPT.findall(page)]
    allowed = " ".join(["'self'", *(f"'sha256-{one}'" for one in dict.fromkeys(hashes))])
    return as_header({**DOCS_POLICY, "script-src": allowed})


def add_page(app: FastAPI) -> None:
    """Serve the page, the documentation of the API and the help."""
    files, docs = PageFiles(FILES, POLICY), PageFiles(FILES, DOCS_POLICY)

    @app.get("/", include_in_schema=False)
    async def page(request: Request) -> Response:
        return await files.get_response("index.html", request.scope)

    @app.get("/docs", include_in_schema=False)
    async def documentation(request: Request) -> Response:
        return await docs.get_response("docs.html", request.scope)

    @app.api_route("/help", methods=["GET", "HEAD"], include_in_schema=False)
    async def help_index() -> Response:
        return RedirectResponse("/help/")

    app.mount("/help", HelpFiles(HELP), name="help")
    app.mount("/web", files, name="web")
    app.mount("/docs/files", PageFiles(_swagger_ui(), DOCS_POLICY), name="swagger-ui")


def _swagger_ui() -> Path:
    """Return the folder of Swagger UI in the installed package that carries it, which is not imported."""
    found = find_spec("fastapi_offline")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("Swagger UI is not installed; pip install fastapi-offline, which brings it")
    return Path(found.origin).parent / "static"
