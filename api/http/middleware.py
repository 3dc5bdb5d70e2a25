"""What is turned away before any route sees it: unknown hosts and bodies that are too large."""

from functools import lru_cache

from starlette.datastructures import Headers
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.problems import problem

IMAGES = ("/v2/", "/jobs/predict")  # paths that images are sent to
DATASETS = "/datasets"  # and whole data sets
BODY, IMAGE, DATASET = (f"CHIFFRE_MAX_{what}_BYTES" for what in ("BODY", "IMAGE", "DATASET"))
SAFE = ("GET", "HEAD", "OPTIONS")  # methods that change nothing
KEPT = 1000  # hosts of which it is remembered whether they are known


class KnownHosts:
    """Answers 400 to any Host that is not listed; `*.example.org` and `*` work.

    A page of another site cannot reach this API by giving its own name this machine's address (DNS rebinding), nor by
    asking it under its own address for anything but to look (cross-site request forgery): what a browser sends for
    another site is answered with 403, unless that site is listed too.
    """

    def __init__(self, app: ASGIApp, allowed: list[str]) -> None:
        self.app = app
        self.allowed = [pattern.lower().strip("[]") for pattern in allowed]
        self._is_known = lru_cache(KEPT)(self._known)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is addressed to a known host."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self._is_known(_header(scope, b"host")):
            if scope["method"] in SAFE or self._is_ours(scope):
                await self.app(scope, receive, send)
            else:
                detail = "a page of another site asks for this; add its host to CHIFFRE_ALLOWED_HOSTS if it may"
                await problem(403, detail)(scope, receive, send)
        else:
            detail = "this host name is not known here; add it to CHIFFRE_ALLOWED_HOSTS and start the API again"
            await problem(400, detail)(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        """Whether what asks is no page of another site: browsers tell the origin of whatever is not just looked at."""
        origin = _header(scope, b"origin")
        return not origin or self._is_known(origin.partition(b"://")[2])

    def _known(self, value: bytes) -> bool:
        header = value.decode("latin-1")
        host = header.lower().rpartition(":")[0] if _has_port(header) else header.lower()
        host = host.strip("[]")
        return any(
            pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))
            for pattern in self.allowed
        )


class BodyLimit:
    """Answers 413 to a body of more than `limit` bytes, of `images` or `datasets` where such are sent.

    Starlette's middleware counts what comes; it would answer a declared length that is too large in plain text.
    """

    def __init__(self, app: ASGIApp, limit: int, images: int, datasets: int) -> None:
        self.limits = {BODY: limit, IMAGE: images, DATASET: datasets}
        self.apps = {name: RequestBodyLimitMiddleware(app, bytes_) for name, bytes_ in self.limits.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is not declared to be too large."""
        declared = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        path = scope.get("path", "")
        name = IMAGE if path.startswith(IMAGES) else DATASET if path == DATASETS else BODY
        if declared.isdigit() and int(declared[:20]) > self.limits[name]:
            detail = f"the body is larger than {self.limits[name]} bytes, what {name} allows"
            await problem(413, detail)(scope, receive, send)
        else:
            await self.apps[name](scope, receive, send)


def _header(scope: Scope, wanted: bytes) -> bytes:
    """A header as it came."""
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return b""


def _has_port(header: str) -> bool:
    return header.rpartition(":")[2].isdigit() and not header.endswith("]")
