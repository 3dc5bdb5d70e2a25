"""Evaluation: measure a version on a data set that it was not trained on."""

from collections.abc import Callable
from typing import TypeVar

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.deps import OnceDep, PredictingDep, UploadedDep
from api.http.errors import BadInput
from api.views.jobs import accepted
from api.views.schemas import JobDetail
from ml.datasets import FindDataset, SplitName
from ml.errors import UnknownName
from ml.images.resize import resizes
from ml.networks import networks
from worker.database.tables import Job
from worker.ledger.idempotency import Once
from worker.prediction.image_sets import Subset
from worker.prediction.rows import PredictionRows, PredictSpec, asked_version, check_other
from worker.supervision.notify import wake_worker

router = APIRouter(prefix="/jobs", tags=["jobs"])

T = TypeVar("T")


class Evaluation(BaseModel):
    """A version to evaluate and the images to evaluate it on."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str = Field(max_length=100, description="a network's name")
    version: int = Field(ge=1, le=2**31 - 1, description="the version's number")
    dataset: str = Field(max_length=100, description="a data set that the version was not trained on")
    subset: Subset = Field("test", description="subset of that data set; using its test images counts as an opening")
    split: SplitName = Field("random", description="random: 72 / 18 / 10 %; official: the publishers' test images")
    resize: str = Field(
        "bilinear",
        description="Pillow filter that resizes images to the network's size",
        json_schema_extra={"enum": list(resizes)},
    )
    canonical: bool = Field(
        False,
        description="after resizing, give the images the polarity, stroke width, slant, size and position of the "
        "version's data set",
    )


@router.post("/evaluate", status_code=202)
def evaluate(
    evaluation: Evaluation, predicting: PredictingDep, uploaded: UploadedDep, once: OnceDep, response: Response
) -> JobDetail:
    """Evaluate a version on another data set: accuracy, its interval, and the confusion matrix.

    Images are resized to the network's input, and classes are matched by name. The prediction for each image is in a
    file, as for a predict job: `GET /jobs/{job_id}/predictions`.
    """
    job = _accepted(evaluation, predicting, uploaded.find, once)
    wake_worker()
    return accepted(job, predicting.database, response)


def _accepted(evaluation: Evaluation, predicting: PredictionRows, find: FindDataset, once: Once | None) -> Job:
    _named("model", evaluation.model, networks.__getitem__)
    dataset = _named("dataset", evaluation.dataset, find)
    _named("resize", evaluation.resize, resizes.__getitem__)
    version = asked_version(predicting.database, evaluation.model, evaluation.version, None)
    check_other(predicting.database, version, dataset, evaluation.split, evaluation.subset)
    spec = PredictSpec(**{**evaluation.model_dump(), "dataset": dataset.name})
    return predicting.accept(version, spec, once=once)


def _named(field: str, name: str, find: Callable[[str], T]) -> T:
    try:
        return find(name)
    except UnknownName as error:
        raise BadInput(f"#/{field}", str(error)) from None
