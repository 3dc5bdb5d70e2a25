"""The files of a published version, and its card."""

from typing import Annotated, Any

from fastapi import APIRouter, Header, Response
from fastapi.responses import StreamingResponse

from api.cards import card_of
from api.deps import DatabaseDep, StoreDep
from api.versions import ModelName, VersionNumber, file_name
from worker.registry import find_version
from worker.store import Store
from worker.tables import Artifact

router = APIRouter(prefix="/models/{model}/versions/{version}", tags=["models"])

KnownTag = Annotated[
    str | None, Header(alias="If-None-Match", max_length=2000, description="an ETag; the file is sent unless it is its")
]
BINARY = {"schema": {"type": "string", "format": "binary"}}
FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file; its ETag is its SHA-256", "content": {"application/octet-stream": BINARY}},
    304: {"description": "The file is the one that If-None-Match names"},
}
CARD: dict[int | str, dict[str, Any]] = {
    200: {"description": "The card", "content": {"text/markdown": {"schema": {"type": "string"}}}}
}


@router.get("/checkpoint", response_class=Response, responses=FILE)
def checkpoint(
    model: ModelName, version: VersionNumber, database: DatabaseDep, store: StoreDep, known: KnownTag = None
) -> Response:
    """Download the weights, as safetensors with the layers in the header."""
    with database.reading() as session:
        found = find_version(session, model, version)
        file = session.get_one(Artifact, found.checkpoint_id)
    return _sent(store, file, file_name(found, "safetensors"), known)


@router.get("/onnx", response_class=Response, responses=FILE)
def onnx(
    model: ModelName, version: VersionNumber, database: DatabaseDep, store: StoreDep, known: KnownTag = None
) -> Response:
    """Download the graph, as ONNX."""
    with database.reading() as session:
        found = find_version(session, model, version)
        file = session.get_one(Artifact, found.onnx_id)
    return _sent(store, file, file_name(found, "onnx"), known)


@router.get("/card", response_class=Response, responses=CARD)
def card(model: ModelName, version: VersionNumber, database: DatabaseDep) -> Response:
    """Show what a version is, what it is for, what it reached, and how to load it, as Markdown."""
    with database.reading() as session:
        text = card_of(session, find_version(session, model, version))
    return Response(text, media_type="text/markdown")


def _sent(store: Store, file: Artifact, name: str, known: str | None) -> Response:
    """A file, unless the client has it already; no session is open while storage is read."""
    headers = {"ETag": f'"{file.sha256}"', "Cache-Control": "no-cache"}
    if known is not None and _names(known, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    pieces = store.pieces(file.path, file.sha256)
    headers |= {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(file.size)}
    return StreamingResponse(pieces, media_type="application/octet-stream", headers=headers)


def _names(known: str, tag: str) -> bool:
    """Whether an If-None-Match names a tag, by the weak comparison of RFC 9110, 13.1.2."""
    return any(one.strip().removeprefix("W/") in (tag, "*") for one in known.split(","))
