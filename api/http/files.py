"""Files as answers: in pieces, their hashes for tags, and not at all where the client has them already."""

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Header, Response
from fastapi.responses import StreamingResponse

from worker.artifacts.store import Store
from worker.database.tables import Artifact

KnownTag = Annotated[
    str | None, Header(alias="If-None-Match", max_length=2000, description="an ETag; the file is sent unless it is its")
]
BINARY = {"schema": {"type": "string", "format": "binary"}}
TEXT = {"schema": {"type": "string"}}


@dataclass(frozen=True)
class File:
    """An object of the store."""

    path: str
    sha256: str
    size: int  # bytes


def documented(content: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    """What the OpenAPI document says of a file, whatever its content types are."""
    return {
        200: {"description": "The file; its ETag is its SHA-256", "content": content},
        304: {"description": "The file is the one that If-None-Match names"},
    }


def sent(store: Store, file: Artifact | File, name: str, known: str | None, media_type: str) -> Response:
    """A file, unless the client has it already; no session is open while storage is read."""
    headers = {"ETag": f'"{file.sha256}"', "Cache-Control": "no-cache"}
    if names(known, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    pieces = store.pieces(file.path, file.sha256)
    headers |= {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(file.size)}
    return StreamingResponse(pieces, media_type=media_type, headers=headers)


def names(known: str | None, tag: str) -> bool:
    """Whether an If-None-Match names a tag, by the weak comparison of RFC 9110, 13.1.2."""
    return any(one.strip().removeprefix("W/") in (tag, "*") for one in (known or "").split(","))
