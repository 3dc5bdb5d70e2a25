"""Data sets: what Chiffre brings along, and what people upload."""

from datetime import datetime
from threading import Lock
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, Field

from api.deps import ArchiveDep, StoreDep, UploadedDep
from api.http.errors import Busy
from api.http.files import BINARY, File, KnownTag, documented, sent
from api.inputs.archives import MAX_CLASSES, check_classes, read_archive
from api.inputs.uploads import kind_of
from ml.datasets import NAME, Dataset, can_be_dataset, datasets, split_sizes
from worker.database.clock import to_datetime
from worker.database.tables import DatasetVersion, UsedDataset
from worker.errors import NotFound
from worker.ledger.uploaded_datasets import DatasetStore

router = APIRouter(prefix="/datasets", tags=["datasets"])

Number = Annotated[int, Path(ge=1, le=2**31 - 1)]

ZIP, OCTETS = "application/zip", "application/octet-stream"
ARCHIVE = {"schema": {"type": "string", "format": "binary"}}
BODY = {"requestBody": {"required": True, "content": {ZIP: ARCHIVE, OCTETS: ARCHIVE}}}
MAX_DESCRIPTION = 2000  # characters
_reading = Lock()  # one data set at a time is in memory, whole

Name = Annotated[str, Path(max_length=100, description="a data set's name")]


class DatasetPublic(BaseModel):
    """One version of a data set."""

    name: str
    version: int | None = Field(description="null for what Chiffre brings along, which has no other")
    dataset: str = Field(description="how a specification names this version, whatever is uploaded later")
    description: str
    images: int
    shape: list[int] = Field(description="channels, height, width")
    classes: list[str]
    sha256: str = Field(description="of images and labels, whatever file they came from")
    train: int = Field(description="images that train, validate and test by the split 72 / 18 / 10 %")
    validation: int
    test: int
    created_at: datetime | None


HERE: dict[int | str, dict[str, Any]] = {200: {"model": DatasetPublic, "description": "it is here already"}}


class DatasetPage(BaseModel):
    """Data sets, each in its newest version."""

    items: list[DatasetPublic]


class DatasetDetail(BaseModel):
    """A data set with all its versions, the newest first."""

    name: str
    versions: list[DatasetPublic]


@router.get("")
def list_datasets(uploaded: UploadedDep) -> DatasetPage:
    """List data sets, each in its newest version."""
    newest: dict[str, DatasetPublic] = {}
    for version, known in uploaded.versions():
        newest.setdefault(version.name, _public(version, known))
    brought = [_brought(name, dataset) for name, dataset in datasets.items()]
    return DatasetPage(items=[*brought, *newest.values()])


@router.post("", status_code=201, openapi_extra=BODY, responses=HERE)
def add_dataset(
    request: Request,
    response: Response,
    name: Annotated[str, Query(pattern=f"^{NAME}$", description="sent again with other images it is a new version")],
    archive: ArchiveDep,
    uploaded: UploadedDep,
    classes: Annotated[
        list[str] | None,
        Query(min_length=2, max_length=MAX_CLASSES, description="names of the classes, by label; once for each"),
    ] = None,
    description: Annotated[str, Query(max_length=MAX_DESCRIPTION, pattern=r"^[^\x00]*$")] = "",
) -> DatasetPublic:
    """Keep a data set of your own: a zip archive of images and labels, as npy (numpy.savez) or IDX files."""
    kind_of(request, {ZIP, OCTETS})
    named = check_classes(tuple(classes), "?classes") if classes else None
    if not _reading.acquire(blocking=False):
        raise Busy("another data set is being read; try again shortly")
    try:
        sent = read_archive(archive, request.app.state.max_dataset_bytes, named)
        version, is_new = uploaded.add(name, sent.arrays, sent.classes, description)
    finally:
        _reading.release()
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/datasets/{version.name}/versions/{version.version}"
    return get_version(version.name, version.version, uploaded)


@router.get("/{name}")
def get_dataset(name: Name, uploaded: UploadedDep) -> DatasetDetail:
    """One data set with all its versions."""
    brought = datasets.get(name)
    if brought is not None:
        return DatasetDetail(name=name, versions=[_brought(name, brought)])
    return DatasetDetail(name=name, versions=[_public(*row) for row in uploaded.versions(_a_name(name))])


@router.get("/{name}/versions/{version}")
def get_version(name: Name, version: Number, uploaded: UploadedDep) -> DatasetPublic:
    """One version of a data set that somebody has uploaded."""
    return _public(*_version(name, version, uploaded))


@router.get("/{name}/versions/{version}/data", response_class=Response, responses=documented({OCTETS: BINARY}))
def get_data(name: Name, version: Number, uploaded: UploadedDep, store: StoreDep, known: KnownTag = None) -> Response:
    """Download the images and labels of a version, as safetensors."""
    row, _ = _version(name, version, uploaded)
    return sent(store, File(row.path, row.file_sha256, row.size), f"{name}-{version}.safetensors", known, OCTETS)


def _version(name: str, version: int, uploaded: DatasetStore) -> tuple[DatasetVersion, UsedDataset]:
    for row, known in uploaded.versions(_a_name(name)):
        if row.version == version:
            return row, known
    raise NotFound(f"the data set has no such version; GET /datasets/{name} lists them")


def _a_name(name: str) -> str:
    # Postgres would stumble over some texts that can be no name.
    if not can_be_dataset(name) or "@" in name:
        raise NotFound("no data set of this name was uploaded; GET /datasets lists the data sets")
    return name


def _brought(name: str, dataset: Dataset) -> DatasetPublic:
    fields = {"name": name, "version": None, "dataset": name, "description": dataset.description, "created_at": None}
    return _with(fields, dataset.size, dataset.shape, dataset.classes, dataset.sha256)


def _public(row: DatasetVersion, known: UsedDataset) -> DatasetPublic:
    pinned = {"version": row.version, "dataset": f"{row.name}@{row.version}", "created_at": to_datetime(row.created_at)}
    fields = {"name": row.name, "description": row.description, **pinned}
    return _with(fields, known.images, known.shape, row.classes, row.sha256)


def _with(fields: dict[str, Any], images: int, shape: Any, classes: Any, sha256: str) -> DatasetPublic:
    train, validation, test = split_sizes(images, None, "random")
    parts = {"train": train, "validation": validation, "test": test}
    return DatasetPublic(**fields, **parts, images=images, shape=list(shape), classes=list(classes), sha256=sha256)
