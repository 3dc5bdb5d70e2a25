"""Files as answers: sent in pieces, with their hash as ETag, and not sent again to a client that has them."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Response
from fastapi.responses import StreamingResponse

from worker.artifacts.store import Store
from worker.database.tables import Artifact

KnownTag = Annotated[
    str | None,
    Header(alias="If-None-Match", max_length=2000, description="an ETag; the file is sent only if its own differs"),
]
BINARY = {"schema": {"type": "string", "format": "binary"}}
TEXT = {"schema": {"type": "string"}}


@dataclass(frozen=True)
class File:
    """A file in the artifact store."""

    path: str
    sha256: str
    size: int  # bytes


def documented(content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of a route that sends a file.

    Args:
        content: the schema of each content type.
    """
    return {
        200: {"description": "The file; its ETag is its SHA-256", "content": content},
        304: {"description": "The file has the ETag of If-None-Match"},
    }


def sent(store: Store, file: Artifact | File, name: str, known: str | None, media_type: str) -> Response:
    """Answer with a file, or with 304 if the client has it; no database session is open while storage is read."""
    headers = {"ETag": f'"{file.sha256}"', "Cache-Control": "no-cache"}
    if names(known, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    pieces = store.pieces(file.path, file.sha256)
    headers |= {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(file.size)}
    return StreamingResponse(pieces, media_type=media_type, headers=headers)


def names(known: str | None, tag: str) -> bool:
    """Return whether an If-None-Match header names a tag, by the weak comparison of RFC 9110, section 13.1.2."""
    return any(one.strip().removeprefix("W/") in (tag, "*") for one in (known or "").split(","))
