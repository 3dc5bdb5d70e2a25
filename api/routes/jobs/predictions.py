"""Batch prediction: a job that classifies a data set or uploaded images, and its file of predictions."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from api.deps import ImagesDep, OnceOfImagesDep, PredictingDep, StoreDep, UploadedDep
from api.http.errors import BadInput, invalid, refuse_many
from api.http.field_errors import not_json
from api.http.files import TEXT, KnownTag, documented, names, sent
from api.inputs.uploads import kind_of, readers
from api.views.jobs import JobId, accepted
from api.views.schemas import JobDetail
from ml.datasets import FindDataset
from ml.errors import UnknownName
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
CSV_LINES = 500  # per chunk of the response
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet reads a cell that starts with one of these as a formula
COLUMNS = ("index", "id", "label", "digit", "confidence", "abstained", "reason", "truth", "error")  # of the CSV


FILE = documented({LINES: TEXT, "text/csv": TEXT})


class VersionChoice(BaseModel):
    """The version that classifies, and the form that its images get."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: int | None = Field(None, ge=1, le=2**31 - 1, description="the network's version; default: the champion")
    dataset: str | None = Field(
        None, max_length=100, description="data set that the version was trained on; default without a version: mnist"
    )
    canonical: bool = Field(
        False, description="first give the images the polarity, stroke width, slant, size and position of the data set"
    )


class DatasetToClassify(VersionChoice):
    """The JSON body: a subset of the version's data set to classify."""

    model: str = Field(max_length=100, description="a network's name")
    subset: Subset = Field(
        "validation",
        description="subset of the version's data set, divided as in the version's job; `test` and `all` use the test "
        "images, which counts as an opening",
    )


class ImagesToClassify(VersionChoice):
    """The query parameters for a body of images."""

    model: str | None = Field(None, max_length=100, description="a network's name; required if the body holds images")


C = TypeVar("C", DatasetToClassify, ImagesToClassify)


def _body() -> dict[str, Any]:
    """Return the OpenAPI description of the bodies."""
    a_line = 'one image per line: {"pixels": [784 numbers], "id": "a.png", "label": "7"}; id and label are optional'
    lines = {"schema": {"type": "string", "description": a_line}}
    content: dict[str, Any] = {JSON: {"schema": DatasetToClassify.model_json_schema(), "example": {"model": "cnn"}}}
    content |= {"application/x-npy": {"schema": {"type": "string", "format": "binary"}}}
    content |= dict.fromkeys((LINES, "application/x-ndjson"), lines)
    return {"requestBody": {"required": True, "content": content}}


@router.post("/predict", status_code=202, openapi_extra=_body())
def predict(
    request: Request,
    query: Annotated[ImagesToClassify, Query()],
    body: ImagesDep,
    predicting: PredictingDep,
    uploaded: UploadedDep,
    store: StoreDep,
    once: OnceOfImagesDep,
    response: Response,
) -> JobDetail:
    """Classify a subset of a data set, or uploaded images, with a published version.

    - A JSON body names a network and a subset of the version's data set.
    - An `application/x-npy` body is an array of images.
    - An `application/jsonl` body is one object per line with `pixels`, and optionally `id` and `label`.

    With images, the query parameters choose the version. The predictions are a file: `GET /jobs/{job_id}/predictions`.
    If labels are known, the job's result has accuracy and confusion matrix.
    """
    kind = kind_of(request, {JSON, *readers})
    if kind == JSON:
        job = _of_dataset(_document(body, query, uploaded.find), predicting, once)
    else:
        job = _of_images(_checked(query, "?", uploaded.find), kind, body, predicting, store, once)
    wake_worker()
    return accepted(job, predicting.database, response)


@router.get("/{job_id}/predictions", response_class=Response, responses=FILE)
def predictions(
    job_id: JobId, request: Request, predicting: PredictingDep, store: StoreDep, known: KnownTag = None
) -> Response:
    """Return a job's predictions, one JSON object per line and image; with `Accept: text/csv` as CSV."""
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


def _of_dataset(choice: DatasetToClassify, predicting: PredictionRows, once: Once | None) -> Job:
    version = asked_version(predicting.database, choice.model, choice.version, choice.dataset)
    check_images(predicting.database, version)
    spec = _spec(version, canonical=choice.canonical, subset=choice.subset)
    return predicting.accept(version, spec, once=once)


def _of_images(
    choice: ImagesToClassify, kind: str, body: bytes, predicting: PredictionRows, store: Store, once: Once | None
) -> Job:
    if choice.model is None:
        raise BadInput("?model", "missing; name the network that classifies the images")
    version = asked_version(predicting.database, choice.model, choice.version, choice.dataset)
    images = readers[kind](body, tuple(version.shape), tuple(version.classes))
    with NewFiles(store) as files:
        upload = files.write(upload_key(version), images.to_bytes())
        return predicting.accept(version, _spec(version, canonical=choice.canonical), upload, once)


def _spec(version: ModelVersion, **options: Any) -> PredictSpec:
    return PredictSpec(model=version.model, version=version.version, dataset=version.dataset, **options)


def _document(body: bytes, query: ImagesToClassify, find: FindDataset) -> DatasetToClassify:
    """Parse the JSON body.

    Raises:
        BadInput: if the body is invalid, or the query has parameters that belong into the body.

    """
    for name in sorted(query.model_fields_set):
        raise BadInput(f"?{name}", "not allowed with a JSON body; put it into the body")
    try:
        document = orjson.loads(body)
        if isinstance(document, dict):
            refuse_many(document, DatasetToClassify, "#/")
        return _checked(DatasetToClassify.model_validate(document, strict=True), "#/", find)
    except orjson.JSONDecodeError as error:
        raise BadInput("#", not_json(error.pos)) from None
    except ValidationError as error:
        raise invalid(error, "#/", DatasetToClassify) from None


def _checked(choice: C, prefix: str, find: FindDataset) -> C:
    """Return the choice.

    Raises:
        BadInput: if it names a network or a data set that does not exist.

    """
    lookups: dict[str, Callable[[str], object]] = {"model": networks.__getitem__, "dataset": find}
    for field, look_up in lookups.items():
        name = getattr(choice, field)
        try:
            if name is not None:
                look_up(name)
        except UnknownName as error:
            raise BadInput(f"{prefix}{field}", str(error)) from None
    return choice


def _why_none(job: Job) -> str:
    """Return why a job has no predictions, and what to do."""
    if not job.predicts:
        return "the job classifies no images; submit one that does with POST /jobs/predict"
    if JobState(job.state).final:
        return f"the job is {job.state} and has no predictions; submit another one"
    return f"the job is {job.state} and has no predictions yet; wait until GET /jobs/{job.id} says completed"


def _as_csv(store: Store, file: Artifact, name: str) -> Response:
    rows = _csv(_lines(store.pieces(file.path, file.sha256)))
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(rows, media_type="text/csv; charset=utf-8", headers=headers)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of a file from pieces that may end within a line."""
    rest = b""
    for piece in pieces:
        *whole, rest = (rest + piece).split(b"\n")
        yield from whole


def _csv(lines: Iterator[bytes]) -> Iterator[str]:
    """Yield predictions as CSV, at most `CSV_LINES` rows at a time."""
    yield ",".join(COLUMNS) + "\r\n"
    while chunk := list(islice(lines, CSV_LINES)):
        text = io.StringIO()
        csv.DictWriter(text, COLUMNS).writerows(map(_row, chunk))
        yield text.getvalue()


def _row(line: bytes) -> dict[str, Any]:
    """Return a prediction by column; put ' before a text that a spreadsheet would run as a formula.

    Spreadsheets do not show the '.
    """
    values: dict[str, Any] = orjson.loads(line)
    return {name: f"'{v}" if isinstance(v, str) and v.startswith(FORMULAS) else v for name, v in values.items()}
