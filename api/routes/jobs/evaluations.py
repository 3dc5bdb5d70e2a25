"""Evaluation: how well a version does on another data set than the one that it was trained on."""

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
    """Which version is evaluated, and on what."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str = Field(max_length=100, description="a network")
    version: int = Field(ge=1, le=2**31 - 1, description="of the network")
    dataset: str = Field(max_length=100, description="another data set than the version was trained on")
    subset: Subset = Field("test", description="of that data set; to look at its test images is counted")
    split: SplitName = Field("random", description="random: 72 / 18 / 10 %; official: the publishers' test images")
    resize: str = Field(
        "bilinear",
        description="how images of another size get the network's, by Pillow's filter of this name",
        json_schema_extra={"enum": list(resizes)},
    )
    canonical: bool = Field(False, description="then bring the images to the form of the version's data set")


@router.post("/evaluate", status_code=202)
def evaluate(
    asked: Evaluation, predicting: PredictingDep, uploaded: UploadedDep, once: OnceDep, response: Response
) -> JobDetail:
    """Evaluate a version on another data set: accuracy, its interval, and the confusion matrix.

    Images are brought to the network's size, and classes are matched by name. What each image shows is a file,
    `GET /jobs/{job_id}/predictions`, as that of a predict job.
    """
    job = _accepted(asked, predicting, uploaded.find, once)
    wake_worker()
    return accepted(job, predicting.database, response)


def _accepted(asked: Evaluation, predicting: PredictionRows, find: FindDataset, once: Once | None) -> Job:
    _named("model", asked.model, networks.__getitem__)
    dataset = _named("dataset", asked.dataset, find)
    _named("resize", asked.resize, resizes.__getitem__)
    version = asked_version(predicting.database, asked.model, asked.version, None)
    check_other(predicting.database, version, dataset, asked.split, asked.subset)
    spec = PredictSpec(**{**asked.model_dump(), "dataset": dataset.name})
    return predicting.accept(version, spec, once=once)


def _named(field: str, name: str, find: Callable[[str], T]) -> T:
    try:
        return find(name)
    except UnknownName as error:
        raise BadInput(f"#/{field}", str(error)) from None
