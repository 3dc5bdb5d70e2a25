"""A version's answers for its validation images: confusion matrix, confidence and mistakes."""

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
    """A version's results on all validation images of its job."""

    images: int
    classes: list[str]
    confusion_matrix: list[list[int]] = Field(description="rows: true classes; columns: predicted classes")
    bins: list[Bin] = Field(description="accuracy by calibrated confidence")


class MistakePublic(BaseModel):
    """A misclassified image."""

    index: int = Field(description="position in the data set, from 0")
    actual: str
    predicted: str
    confidence: float = Field(description="calibrated confidence in the predicted class, 0 to 1")
    pixels: list[int] = Field(description="row by row, 0 to 255; 0 is black")


class Mistakes(BaseModel):
    """Images of one class that the version predicted as another class, most confident first."""

    count: int = Field(description="number of such mistakes; items has at most 24 of them")
    items: list[MistakePublic]


@router.get("/validation")
def validation(
    model: ModelName, version: VersionNumber, database: DatabaseDep, store: StoreDep, looks: LooksDep
) -> ValidationPublic:
    """Return a version's confusion matrix and its accuracy by confidence, on validation images only."""
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
    actual: Annotated[str, Query(max_length=100, description="true class of the images")],
    predicted: Annotated[str, Query(max_length=100, description="class that the version predicts for them")],
    database: DatabaseDep,
    store: StoreDep,
    looks: LooksDep,
) -> Mistakes:
    """Return the validation images of one class that a version predicts as another class."""
    found, judgement = _judged(model, version, database, store, looks)
    row, column = _class(found, "actual", actual), _class(found, "predicted", predicted)
    if row == column:
        raise BadInput("?predicted", "equals ?actual, so these are no mistakes; name another class")
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
        raise BadInput(f"?{name}", f"unknown class; choose one of: {', '.join(version.classes)}")
    return version.classes.index(label)
