"""Evaluation: measure a version on a data set that it was not trained on."""

from typing import Any

from fastapi import APIRouter, Response
from pydantic import BaseModel, ConfigDict, Field

from api.deps import OnceDep, PredictingDep
from api.http.errors import BadInput
from api.views.jobs import accepted
from api.views.schemas import JobDetail
from ml.datasets import SplitName, datasets
from ml.errors import UnknownName
from ml.images.resize import resizes
from ml.networks import networks
from ml.registry import Registry
from worker.database.tables import Job
from worker.ledger.idempotency import Once
from worker.prediction.image_sets import Subset
from worker.prediction.rows import PredictionRows, PredictSpec, asked_version, check_other
from worker.supervision.notify import ring

router = APIRouter(prefix="/jobs", tags=["jobs"])


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
def evaluate(evaluation: Evaluation, predicting: PredictingDep, once: OnceDep, response: Response) -> JobDetail:
    """Evaluate a version on another data set: accuracy, its interval, and the confusion matrix.

    Images are resized to the network's input, and classes are matched by name. The prediction for each image is in a
    file, as for a predict job: `GET /jobs/{job_id}/predictions`.
    """
    job = _accepted(evaluation, predicting, once)
    ring()
    return accepted(job, predicting.database, response)


def _accepted(evaluation: Evaluation, predicting: PredictionRows, once: Once | None) -> Job:
    registries: dict[str, Registry[Any]] = {"model": networks, "dataset": datasets, "resize": resizes}
    for field, registry in registries.items():
        if getattr(evaluation, field) not in registry:
            raise BadInput(f"#/{field}", str(UnknownName(registry.noun, registry)))
    version = asked_version(predicting.database, evaluation.model, evaluation.version, None)
    pinned = datasets.pinned(evaluation.dataset)
    check_other(predicting.database, version, datasets[pinned], evaluation.split, evaluation.subset)
    spec = PredictSpec(**{**evaluation.model_dump(), "dataset": pinned})
    return predicting.accept(version, spec, once=once)[0]
