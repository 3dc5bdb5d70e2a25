"""Downloads of a published version: checkpoint, ONNX graph and model card."""

from typing import Any

from fastapi import APIRouter, Response

from api.deps import DatabaseDep, StoreDep
from api.http.files import BINARY, KnownTag, documented, sent
from api.views.cards import card_of
from api.views.versions import ModelName, VersionNumber, file_name
from worker.database.tables import Artifact
from worker.ledger.champions import find_version

router = APIRouter(prefix="/models/{model}/versions/{version}", tags=["models"])

OCTETS = "application/octet-stream"
FILE = documented({OCTETS: BINARY})
CARD: dict[int | str, dict[str, Any]] = {
    200: {"description": "The card", "content": {"text/markdown": {"schema": {"type": "string"}}}}
}


@router.get("/checkpoint", response_class=Response, responses=FILE)
def checkpoint(
    model: ModelName, version: VersionNumber, database: DatabaseDep, store: StoreDep, known: KnownTag = None
) -> Response:
    """Download the weights as safetensors. The header describes the layers."""
    with database.reading() as session:
        found = find_version(session, model, version)
        file = session.get_one(Artifact, found.checkpoint_id)
    return sent(store, file, file_name(found, "safetensors"), known, OCTETS)


@router.get("/onnx", response_class=Response, responses=FILE)
def onnx(
    model: ModelName, version: VersionNumber, database: DatabaseDep, store: StoreDep, known: KnownTag = None
) -> Response:
    """Download the ONNX graph."""
    with database.reading() as session:
        found = find_version(session, model, version)
        file = session.get_one(Artifact, found.onnx_id)
    return sent(store, file, file_name(found, "onnx"), known, OCTETS)


@router.get("/card", response_class=Response, responses=CARD)
def card(model: ModelName, version: VersionNumber, database: DatabaseDep) -> Response:
    """Return a version's model card as Markdown: intended use, lineage, results, and how to load it."""
    with database.reading() as session:
        text = card_of(session, find_version(session, model, version))
    return Response(text, media_type="text/markdown")
