"""Published versions of networks."""

from collections.abc import Sequence

from fastapi import APIRouter
from sqlalchemy import ColumnElement, Row, select
from sqlalchemy.orm import aliased
from sqlmodel import Session, col

from api.deps import DatabaseDep
from api.views.versions import (
    ChampionPublic,
    ModelName,
    ModelPublic,
    Models,
    VersionNumber,
    VersionPublic,
    unpublished,
)
from worker.database.tables import Artifact, Champion, ModelVersion
from worker.ledger.champions import find_version

router = APIRouter(prefix="/models", tags=["models"])


@router.get("")
def list_models(database: DatabaseDep) -> Models:
    """List every network that has a published version."""
    with database.reading() as session:
        names = session.scalars(select(col(ModelVersion.model)).distinct().order_by(col(ModelVersion.model))).all()
        return Models(items=[_model(session, name) for name in names])


@router.get("/{model}")
def get_model(model: ModelName, database: DatabaseDep) -> ModelPublic:
    """Return a network's champions, and its versions with their origin, newest first."""
    with database.reading() as session:
        return _model(session, model)


@router.get("/{model}/versions/{version}")
def get_version(model: ModelName, version: VersionNumber, database: DatabaseDep) -> VersionPublic:
    """Return a version: its origin, results, size and latency."""
    with database.reading() as session:
        found = find_version(session, model, version)
        (row,) = _rows(session, col(ModelVersion.id) == found.id)
        return _version(*row)


def _model(session: Session, name: str) -> ModelPublic:
    rows = _rows(session, col(ModelVersion.model) == name)
    if not rows:
        raise unpublished()
    champions = [ChampionPublic.of(champion, version) for version, _, _, champion in rows if champion is not None]
    return ModelPublic(
        model=name,
        champions=sorted(champions, key=lambda champion: champion.dataset),
        versions=[_version(*row) for row in rows],
    )


def _version(row: ModelVersion, checkpoint: Artifact, onnx: Artifact, champion: Champion | None) -> VersionPublic:
    return VersionPublic.of(row, checkpoint, onnx, champion is not None)


def _rows(
    session: Session, where: ColumnElement[bool]
) -> Sequence[Row[ModelVersion, Artifact, Artifact, Champion | None]]:
    """Return versions, newest first, each with its checkpoint, its graph, and its champion row if it has one."""
    checkpoint, onnx = aliased(Artifact), aliased(Artifact)
    statement = (
        select(ModelVersion, checkpoint, onnx, Champion)
        .join(checkpoint, col(checkpoint.id) == ModelVersion.checkpoint_id)
        .join(onnx, col(onnx.id) == ModelVersion.onnx_id)
        .outerjoin(Champion, col(Champion.version_id) == ModelVersion.id)
        .where(where)
        .order_by(col(ModelVersion.version).desc())
    )
    return session.execute(statement).all()
