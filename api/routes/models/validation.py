"""What a version answers for its validation images: how often it is right, how sure it is, and what it gets wrong."""

from base64 import b64decode
from typing import Annotated, cast

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from api.deps import DatabaseDep, LooksDep, StoreDep
from api.http.errors import BadInput
from api.subprocesses.image_looks import Looks
from api.views.versions import ModelName, VersionNumber
from ml.datasets import SplitName
from ml.prediction.calibration import UNCALIBRATED, Calibration
from ml.prediction.judgement import Bin, Judgement, JudgementOrder
from worker.artifacts.store import Store
from worker.database.engine import Database
from worker.database.tables import Artifact, Job, ModelVersion
from worker.ledger.champions import find_version
from worker.prediction.rows import check_images

router = APIRouter(prefix="/models/{model}/versions/{version}", tags=["models"])


class ValidationPublic(BaseModel):
    """A version and its validation images, all that its job had."""

    images: int
    classes: list[str]
    confusion_matrix: list[list[int]] = Field(description="a row a true class, a column a predicted one")
    bins: list[Bin] = Field(description="images by confidence, calibrated: how often those are right")


class MistakePublic(BaseModel):
    """An image that was taken for something else."""

    index: int = Field(description="its number in the data set")
    actual: str
    predicted: str
    confidence: float = Field(description="in what it was taken for, calibrated")
    pixels: list[int] = Field(description="row by row, 0 to 255; 0 is black")


class Mistakes(BaseModel):
    """Images of one class that were taken for another, those that it was surest of first."""

    count: int = Field(description="how many there are; at most 24 of them are shown")
    items: list[MistakePublic]


@router.get("/validation")
def validation(
    model: ModelName, version: VersionNumber, database: DatabaseDep, store: StoreDep, looks: LooksDep
) -> ValidationPublic:
    """Judge a version by its validation images: confusion matrix, and accuracy by confidence; never by test images."""
    found, judgement = _judged(model, version, database, store, looks)
    return ValidationPublic(
        images=judgement.images,
        classes=found.classes,
        confusion_matrix=judgement.confusion_matrix,
        bins=judgement.bins,
    )


@router.get("/mistakes")
def mistakes(
    model: ModelName,
    version: VersionNumber,
    actual: Annotated[str, Query(max_length=100, description="what they show")],
    predicted: Annotated[str, Query(max_length=100, description="what they were taken for")],
    database: DatabaseDep,
    store: StoreDep,
    looks: LooksDep,
) -> Mistakes:
    """Show the validation images of one class that a version takes for another."""
    found, judgement = _judged(model, version, database, store, looks)
    row, column = _class(found, "actual", actual), _class(found, "predicted", predicted)
    if row == column:
        raise BadInput("?predicted", "those are no mistakes; name another class than the actual one")
    shown = [m for m in judgement.mistakes if (m.actual, m.predicted) == (row, column)]
    items = [
        MistakePublic(
            index=m.index,
            actual=actual,
            predicted=predicted,
            confidence=m.confidence,
            pixels=list(b64decode(m.pixels)),
        )
        for m in shown
    ]
    return Mistakes(count=judgement.confusion_matrix[row][column], items=items)


def _judged(model: str, version: int, database: Database, store: Store, looks: Looks) -> tuple[ModelVersion, Judgement]:
    with database.reading() as session:
        found = find_version(session, model, version)
        graph = session.get_one(Artifact, found.onnx_id)
        spec = session.get_one(Job, found.job_id).spec
    if (known := looks.known(graph.sha256)) is not None:
        return found, known
    check_images(database, found)
    calibration = Calibration(**found.calibration) if found.calibration else UNCALIBRATED
    order = JudgementOrder(
        dataset=found.dataset,
        split=cast("SplitName", found.split),
        seed=int(spec["seed"]),
        images=spec.get("images"),
        calibration=calibration,
    )
    return found, looks.judged(graph.sha256, order, store.read(graph.path, graph.sha256))


def _class(version: ModelVersion, name: str, label: str) -> int:
    if label not in version.classes:
        raise BadInput(f"?{name}", f"there is no such class; choose one of: {', '.join(version.classes)}")
    return version.classes.index(label)
