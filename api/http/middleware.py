"""Requests that are refused before any route sees them: for unknown hosts, or with bodies that are too large."""

from functools import lru_cache

from starlette.datastructures import Headers
from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from api.http.problems import problem

IMAGES = ("/v2/", "/jobs/predict")  # paths that take images
DATASETS = "/datasets"  # the path that takes whole data sets
BODY, IMAGE, DATASET = (f"CHIFFRE_MAX_{what}_BYTES" for what in ("BODY", "IMAGE", "DATASET"))
SAFE = ("GET", "HEAD", "OPTIONS")  # methods that change nothing
KEPT = 1000  # hosts whose check is cached


class KnownHosts:
    """Answers 400 to any Host that is not listed; `*.example.org` and `*` are allowed as patterns.

    So a page of another site cannot reach this API through a name that it points at this machine (DNS rebinding).
    Nor can it change anything here (cross-site request forgery): a browser's request from another site is answered
    403 unless it only reads, or that site is listed too.
    """

    def __init__(self, app: ASGIApp, allowed: list[str]) -> None:
        self.app = app
        self.allowed = [pattern.lower().strip("[]") for pattern in allowed]
        self._is_known = lru_cache(KEPT)(self._known)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request that is addressed to a known host."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
        elif self._is_known(_header(scope, b"host")):
            if scope["method"] in SAFE or self._is_ours(scope):
                await self.app(scope, receive, send)
            else:
                detail = "a page of another site sent this request; to allow it, add its host to CHIFFRE_ALLOWED_HOSTS"
                await problem(403, detail)(scope, receive, send)
        else:
            detail = "unknown host name; add it to CHIFFRE_ALLOWED_HOSTS and restart the API"
            await problem(400, detail)(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        """Return whether no other site's page sent a request: browsers name the origin of all that may change data."""
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
    """Answers 413 to a body of more than `limit` bytes, or of `images` or `datasets` on the paths that take those.

    Starlette's middleware counts the bytes that arrive. It would refuse a declared length in plain text, so this class
    checks the declared length itself.
    """

    def __init__(self, app: ASGIApp, limit: int, images: int, datasets: int) -> None:
        self.limits = {BODY: limit, IMAGE: images, DATASET: datasets}
        self.apps = {name: RequestBodyLimitMiddleware(app, bytes_) for name, bytes_ in self.limits.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on a request whose declared length is within the limit."""
        declared = Headers(scope=scope).get("content-length", "") if scope["type"] == "http" else ""
        path = scope.get("path", "")
        name = IMAGE if path.startswith(IMAGES) else DATASET if path == DATASETS else BODY
        if declared.isdigit() and int(declared[:20]) > self.limits[name]:
            detail = f"the body is larger than {self.limits[name]:,} bytes, the limit of {name}"
            await problem(413, detail)(scope, receive, send)
        else:
            await self.apps[name](scope, receive, send)


def _header(scope: Scope, wanted: bytes) -> bytes:
    """Return the value of a header, empty if there is none."""
    for name, value in scope["headers"]:
        if name == wanted:
            return bytes(value)
    return b""


def _has_port(header: str) -> bool:
    return header.rpartition(":")[2].isdigit() and not header.endswith("]")
