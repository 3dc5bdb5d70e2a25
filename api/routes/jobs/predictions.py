"""Batch prediction: a whole data set, or uploaded images, classified by the worker; the results as a file."""

import csv
import io
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.deps import ImagesDep, OnceOfImagesDep, PredictingDep, StoreDep
from api.http.errors import BadInput, invalid, refuse_many
from api.http.field_errors import not_json
from api.http.files import TEXT, KnownTag, documented, names, sent
from api.inputs.uploads import kind_of, readers
from api.views.jobs import JobId, accepted
from api.views.schemas import JobDetail
from ml.datasets import datasets
from ml.networks import networks
from worker.artifacts.new_files import NewFiles
from worker.artifacts.store import Store
from worker.database.tables import Artifact, Job, JobState, ModelVersion
from worker.errors import NotFound
from worker.ledger.idempotency import Once
from worker.prediction.image_sets import Subset
from worker.prediction.rows import PredictionRows, PredictSpec, asked_version, check_images, upload_key
from worker.supervision.notify import wake_worker

router = APIRouter(prefix="/jobs", tags=["jobs"])

JSON = "application/json"
LINES = "application/jsonl"
CSV_LINES = 500  # sent at a time
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # what a formula begins with for a spreadsheet
COLUMNS = ("index", "id", "label", "digit", "confidence", "abstained", "reason", "truth", "error")  # of the CSV


FILE = documented({LINES: TEXT, "text/csv": TEXT})


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
    a_line = 'a line an image: {"pixels": [784 numbers], "id": "a.png", "label": "7"}, the last two if you like'
    lines = {"schema": {"type": "string", "description": a_line}}
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
    wake_worker()
    return accepted(job, predicting.database, response)


@router.get("/{job_id}/predictions", response_class=Response, responses=FILE)
def predictions(
    job_id: JobId, request: Request, predicting: PredictingDep, store: StoreDep, known: KnownTag = None
) -> Response:
    """What each image of a predict job shows, a JSON object a line; with `Accept: text/csv` as CSV."""
    job, file = predicting.answers(job_id)
    if file is None:
        raise NotFound(_why_none(job))
    name = f"{job_id}-predictions"
    if "text/csv" not in request.headers.get("accept", ""):
        answer = sent(store, file, f"{name}.jsonl", known, LINES)
    else:
        tag = f'"{file.sha256}.csv"'
        answer = Response(status_code=304) if names(known, tag) else _as_csv(store, file, f"{name}.csv")
        answer.headers.update({"ETag": tag, "Cache-Control": "no-cache"})
    answer.headers["Vary"] = "Accept"
    return answer


def _of_dataset(asked: OfDataset, predicting: PredictionRows, once: Once | None) -> Job:
    version = asked_version(predicting.database, asked.model, asked.version, asked.dataset)
    check_images(predicting.database, version)
    spec = _spec(version, canonical=asked.canonical, subset=asked.subset)
    return predicting.accept(version, spec, once=once)


def _of_images(
    asked: OfImages, kind: str, body: bytes, predicting: PredictionRows, store: Store, once: Once | None
) -> Job:
    if asked.model is None:
        raise BadInput("?model", "name the network that is to classify them")
    version = asked_version(predicting.database, asked.model, asked.version, asked.dataset)
    images = readers[kind](body, tuple(version.shape), tuple(version.classes))
    with NewFiles(store) as files:
        upload = files.write(upload_key(version), images.to_bytes())
        return predicting.accept(version, _spec(version, canonical=asked.canonical), upload, once)


def _spec(version: ModelVersion, **how: Any) -> PredictSpec:
    return PredictSpec(model=version.model, version=version.version, dataset=version.dataset, **how)


def _document(body: bytes, query: OfImages) -> OfDataset:
    """The JSON body; BadInput names what is wrong with it."""
    for name in sorted(query.model_fields_set):
        raise BadInput(f"?{name}", "with a JSON body give it there")
    try:
        document = orjson.loads(body)
        if isinstance(document, dict):
            refuse_many(document, OfDataset, "#/")
        return _checked(OfDataset.model_validate(document, strict=True), "#/")
    except orjson.JSONDecodeError as error:
        raise BadInput("#", not_json(error.pos)) from None
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


def _as_csv(store: Store, file: Artifact, name: str) -> Response:
    rows = _csv(_lines(store.pieces(file.path, file.sha256)))
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The lines of a file that comes in pieces, which end anywhere."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _csv(lines: Iterator[bytes]) -> Iterator[str]:
    """Predictions as CSV, some lines at a time."""
    yield ",".join(COLUMNS) + "\r\n"
    while some := list(islice(lines, CSV_LINES)):
        text = io.StringIO()
        csv.DictWriter(text, COLUMNS).writerows(map(_row, some))
        yield text.getvalue()


def _row(line: bytes) -> dict[str, Any]:
    """A prediction; a text that a spreadsheet would take for a formula has a ' before it, which that hides."""
    values: dict[str, Any] = orjson.loads(line)
    return {name: f"'{v}" if isinstance(v, str) and v.startswith(FORMULAS) else v for name, v in values.items()}
