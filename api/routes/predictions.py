"""Batch prediction: a whole data set, or uploaded images, classified by the worker; the results as a file."""

import csv
import io
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.deps import ImagesDep, OnceOfImagesDep, PredictingDep, StoreDep
from api.errors import BadInput, invalid
from api.routes.jobs import JobId, accepted
from api.schemas import JobDetail
from api.tags import KnownTag, names
from api.uploads import kind_of, readers
from ml.datasets import datasets
from ml.errors import ChiffreError
from ml.networks import networks
from worker.errors import NotFound
from worker.image_sets import Subset
from worker.once import Once
from worker.predicting import Predicting, PredictSpec, asked_version, check_images, upload_key
from worker.queue import ring
from worker.store import Store, drop_files
from worker.tables import Job, JobState, ModelVersion

router = APIRouter(prefix="/jobs", tags=["jobs"])

JSON = "application/json"
LINES = "application/jsonl"
CSV_LINES = 500  # sent at a time
COLUMNS = ("index", "id", "label", "digit", "confidence", "abstained", "reason", "truth", "error")  # of the CSV


TEXT = {"schema": {"type": "string"}}
FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file; its ETag is its SHA-256", "content": {LINES: TEXT, "text/csv": TEXT}},
    304: {"description": "The file is the one that If-None-Match names"},
}


class Whose(BaseModel):
    """Which version is asked, and how its images are taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int | None = Field(None, ge=1, le=2**31 - 1, description="of the network; without it the champion")
    dataset: str | None = Field(None, max_length=100, description="what it was trained on; without both it is mnist")
    canonical: bool = Field(False, description="bring the images to the data set's own form first")


class OfDataset(Whose):
    """The body that names part of a data set."""

    model: str = Field(max_length=100, description="a network")
    subset: Subset = Field(
        "validation",
        description="of the version's data set, as the job that it comes from divided it; to look at the test images, "
        "which all of them include, is counted",
    )


class OfImages(Whose):
    """The query that goes with images."""

    model: str | None = Field(None, max_length=100, description="a network; needed where the body is images")


W = TypeVar("W", OfDataset, OfImages)


def _body() -> dict[str, Any]:
    """What the OpenAPI document says of the bodies."""
    lines = {"schema": {"type": "string"}, "example": '{"pixels": [0, 0, 255], "id": "a.png", "label": "7"}'}
    content: dict[str, Any] = {JSON: {"schema": OfDataset.model_json_schema(), "example": {"model": "cnn"}}}
    content |= {"application/x-npy": {"schema": {"type": "string", "format": "binary"}}}
    content |= dict.fromkeys((LINES, "application/x-ndjson"), lines)
    return {"requestBody": {"required": True, "content": content}}


@router.post("/predict", status_code=202, openapi_extra=_body())
def predict(
    request: Request,
    whose: Annotated[OfImages, Query()],
    body: ImagesDep,
    predicting: PredictingDep,
    store: StoreDep,
    once: OnceOfImagesDep,
    response: Response,
) -> JobDetail:
    """Classify part of a data set, or images that are sent, with a published version.

    As JSON the body names a network and part of a data set. As `application/x-npy` it is an array of images, as
    `application/jsonl` an object a line with `pixels`, and `id` and `label` if you like; whose answer is wanted then
    stands in the query. The results are a file, `GET /jobs/{job_id}/predictions`; where labels are known the job tells
    accuracy and confusion matrix.
    """
    kind = kind_of(request, {JSON, *readers})
    if kind == JSON:
        job = _of_dataset(_document(body, whose), predicting, once)
    else:
        job = _of_images(_checked(whose, "?"), kind, body, predicting, store, once)
    ring()
    return accepted(job, predicting.database, response)


@router.get("/{job_id}/predictions", response_class=Response, responses=FILE)
def predictions(
    job_id: JobId, request: Request, predicting: PredictingDep, store: StoreDep, known: KnownTag = None
) -> Response:
    """What each image of a predict job shows, a JSON object a line; with `Accept: text/csv` as CSV."""
    job, file = predicting.answers(job_id)
    if file is None:
        raise NotFound(_why_none(job))
    as_csv = "text/csv" in request.headers.get("accept", "")
    kind, suffix = ("text/csv", "csv") if as_csv else (LINES, "jsonl")
    tag = f"{file.sha256}.csv" if as_csv else file.sha256
    headers = {"ETag": f'"{tag}"', "Cache-Control": "no-cache", "Vary": "Accept"}
    if names(known, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    headers["Content-Disposition"] = f'attachment; filename="{job.id}-predictions.{suffix}"'
    content = store.read(file.path, file.sha256)
    return (
        StreamingResponse(_csv(content), media_type=kind, headers=headers)
        if as_csv
        else Response(content, media_type=kind, headers=headers)
    )


def _of_dataset(asked: OfDataset, predicting: Predicting, once: Once | None) -> Job:
    version = asked_version(predicting.database, asked.model, asked.version, asked.dataset)
    check_images(version)
    spec = _spec(version, canonical=asked.canonical, subset=asked.subset)
    return predicting.accept(version, spec, once=once)[0]


def _of_images(asked: OfImages, kind: str, body: bytes, predicting: Predicting, store: Store, once: Once | None) -> Job:
    if asked.model is None:
        raise BadInput("?model", "name the network that is to classify them")
    version = asked_version(predicting.database, asked.model, asked.version, asked.dataset)
    images = readers[kind](body, tuple(version.shape), tuple(version.classes))
    key = upload_key(version)
    upload = key, store.write(key, images.to_bytes())
    try:
        job, is_new = predicting.accept(version, _spec(version, canonical=asked.canonical), upload, once)
    except ChiffreError:  # and no other: after one of the database the row may be there
        drop_files(store, [key])
        raise
    if not is_new:
        drop_files(store, [key])
    return job


def _spec(version: ModelVersion, **how: Any) -> PredictSpec:
    return PredictSpec(model=version.model, version=version.version, dataset=version.dataset, **how)


def _document(body: bytes, query: OfImages) -> OfDataset:
    """The JSON body; BadInput names what is wrong with it."""
    for name in sorted(query.model_fields_set):
        raise BadInput(f"?{name}", "with a JSON body give it there")
    try:
        return _checked(OfDataset.model_validate(orjson.loads(body), strict=True), "#/")
    except orjson.JSONDecodeError as error:
        raise BadInput("#", f"not valid JSON: {error.msg}") from None
    except ValidationError as error:
        raise invalid(error, "#/") from None


def _checked(asked: W, prefix: str) -> W:
    """The same; BadInput where it names what does not exist."""
    for name, registry in (("model", networks), ("dataset", datasets)):
        value = getattr(asked, name)
        if value is not None and value not in registry:
            raise BadInput(f"{prefix}{name}", f"there is none of this name; choose one of: {', '.join(registry)}")
    return asked


def _why_none(job: Job) -> str:
    """Why there are no predictions, and what to do."""
    if not job.predicts:
        return "the job classifies no images; POST /jobs/predict posts one that does"
    if JobState(job.state).final:
        return f"the job is {job.state} and has no predictions; post another"
    return f"the job is {job.state}; its predictions are there once it has completed, as GET /jobs/{job.id} will say"


def _csv(content: bytes) -> Iterator[str]:
    """The lines of a file of predictions as CSV, some at a time."""
    text = io.StringIO()
    rows = csv.DictWriter(text, COLUMNS)
    rows.writeheader()
    for number, line in enumerate(io.BytesIO(content), 1):
        rows.writerow(orjson.loads(line))
        if number % CSV_LINES == 0:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()
