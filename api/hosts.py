"""Which Host headers are answered: a page of another site cannot reach this API by renaming itself (DNS rebinding)."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import problem


class KnownHosts:
    """Middleware that answers 400 to any Host that is not listed; `*.example.org` and `*` work."""

    def __init__(self, app: ASGIApp, allowed: list[str]) -> None:
        self.app = app
        self.allowed = [pattern.lower().strip("[]") for pattern in allowed]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is addressed to a known host."""
        if scope["type"] != "http" or self._known(Headers(scope=scope).get("host", "")):
            await self.app(scope, receive, send)
        else:
            detail = "this host name is not known here; add it to CHIFFRE_ALLOWED_HOSTS and start the API again"
            await problem(400, detail)(scope, receive, send)

    def _known(self, header: str) -> bool:
        host = header.lower().rpartition(":")[0] if _has_port(header) else header.lower()
        host = host.strip("[]")
        return any(
            pattern in ("*", host) or (pattern.startswith("*.") and host.endswith(pattern[1:]))
            for pattern in self.allowed
        )


def _has_port(header: str) -> bool:
    return header.rpartition(":")[2].isdigit() and not header.endswith("]")
