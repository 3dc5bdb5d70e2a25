"""Published versions and champions."""

from fastapi import APIRouter
from sqlalchemy import Select, select
from sqlmodel import Session, col

from api.deps import DatabaseDep
from api.schemas import ModelPublic, Models, VersionPublic
from worker.errors import NotFound
from worker.tables import Artifact, Champion, ModelVersion

router = APIRouter(tags=["models"])


@router.get("/models")
def list_models(database: DatabaseDep) -> Models:
    """List every network that has a published version."""
    with database.reading() as session:
        names = session.scalars(select(col(ModelVersion.model)).distinct().order_by(col(ModelVersion.model))).all()
        return Models(items=[_model(session, name) for name in names])


@router.get("/models/{model}")
def get_model(model: str, database: DatabaseDep) -> ModelPublic:
    """One network's versions, the newest first, with where each came from."""
    with database.reading() as session:
        return _model(session, model)


def _model(session: Session, name: str) -> ModelPublic:
    # Postgres takes no NUL in a text.
    rows = [] if "\0" in name else session.execute(_versions(name)).all()
    if not rows:
        raise NotFound("no version of that name is published; GET /models lists those that are")
    return ModelPublic(
        model=name, versions=[VersionPublic.of(version, champion is not None, sha) for version, champion, sha in rows]
    )


def _versions(name: str) -> Select[ModelVersion, int, str]:
    return (
        select(ModelVersion, col(Champion.version_id), col(Artifact.sha256))
        .join(Artifact, col(Artifact.id) == ModelVersion.checkpoint_id)
        .outerjoin(Champion, col(Champion.version_id) == ModelVersion.id)
        .where(col(ModelVersion.model) == name)
        .order_by(col(ModelVersion.version).desc())
    )
