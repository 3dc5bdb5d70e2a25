"""Data sets: those built into Chiffre and those that people upload."""

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
from worker.errors import Fact, NotFound
from worker.uploaded_datasets import DatasetStore

router = APIRouter(prefix="/datasets", tags=["datasets"])

Number = Annotated[int, Path(ge=1, le=2**31 - 1, description="the version's number")]

ZIP, OCTETS = "application/zip", "application/octet-stream"
ARCHIVE = {"schema": {"type": "string", "format": "binary"}}
BODY = {"requestBody": {"required": True, "content": {ZIP: ARCHIVE, OCTETS: ARCHIVE}}}
MAX_DESCRIPTION = 2000  # characters
_reading = Lock()  # a data set is read whole into memory, so only one at a time

Name = Annotated[str, Path(max_length=100, description="a data set's name")]


class DatasetPublic(BaseModel):
    """One version of a data set."""

    name: str
    version: int | None = Field(description="null for a built-in data set, which has only one version")
    dataset: str = Field(description="the name that pins this version in a job's specification")
    description: str
    images: int
    shape: list[int] = Field(description="channels, height, width")
    classes: list[str]
    sha256: str = Field(description="hash of images and labels; the file format does not change it")
    train: int = Field(description="training images in the random split of 72 / 18 / 10 %")
    validation: int
    test: int
    created_at: datetime | None


KNOWN: dict[int | str, dict[str, Any]] = {
    200: {"model": DatasetPublic, "description": "The data set already exists; nothing changed"}
}


class DatasetPage(BaseModel):
    """Data sets, each with its newest version."""

    items: list[DatasetPublic]


class DatasetDetail(BaseModel):
    """A data set with all its versions, newest first."""

    name: str
    versions: list[DatasetPublic]


@router.get("")
def list_datasets(uploaded: UploadedDep) -> DatasetPage:
    """List data sets, each with its newest version."""
    newest: dict[str, DatasetPublic] = {}
    for version, used in uploaded.versions():
        newest.setdefault(version.name, _public(version, used))
    built_in = [_built_in(name, dataset) for name, dataset in datasets.items()]
    return DatasetPage(items=[*built_in, *newest.values()])


@router.post("", status_code=201, openapi_extra=BODY, responses=KNOWN)
def add_dataset(
    request: Request,
    response: Response,
    name: Annotated[
        str,
        Query(
            pattern=f"^{NAME}$",
            description="the data set's name; uploading other images under a used name adds a version, and uploading "
            "identical data again changes nothing",
        ),
    ],
    archive: ArchiveDep,
    uploaded: UploadedDep,
    classes: Annotated[
        list[str] | None,
        Query(
            min_length=2,
            max_length=MAX_CLASSES,
            description="class names in the order of the labels; repeat the parameter once per class",
        ),
    ] = None,
    description: Annotated[
        str, Query(max_length=MAX_DESCRIPTION, pattern=r"^[^\x00]*$", description="what the images show")
    ] = "",
) -> DatasetPublic:
    """Upload a data set: a zip archive of images and labels, as npy files (numpy.savez writes them) or IDX files."""
    kind_of(request, {ZIP, OCTETS})
    class_names = check_classes(tuple(classes), "?classes") if classes else None
    if not _reading.acquire(blocking=False):
        raise Busy("another data set is being read; try again shortly")
    try:
        content = read_archive(archive, request.app.state.max_dataset_bytes, class_names)
        version, is_new = uploaded.add(name, content.arrays, content.classes, description)
    finally:
        _reading.release()
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/datasets/{version.name}/versions/{version.version}"
    return get_version(version.name, version.version, uploaded)


@router.get("/{name}")
def get_dataset(name: Name, uploaded: UploadedDep) -> DatasetDetail:
    """Return a data set with all its versions, newest first."""
    built_in = datasets.get(name)
    if built_in is not None:
        return DatasetDetail(name=name, versions=[_built_in(name, built_in)])
    return DatasetDetail(name=name, versions=[_public(*row) for row in uploaded.versions(_checked_name(name))])


@router.get("/{name}/versions/{version}")
def get_version(name: Name, version: Number, uploaded: UploadedDep) -> DatasetPublic:
    """Return one version of an uploaded data set."""
    return _public(*_version(name, version, uploaded))


@router.get("/{name}/versions/{version}/data", response_class=Response, responses=documented({OCTETS: BINARY}))
def get_data(name: Name, version: Number, uploaded: UploadedDep, store: StoreDep, known: KnownTag = None) -> Response:
    """Download the images and labels of a version, as safetensors."""
    row, _ = _version(name, version, uploaded)
    return sent(store, File(row.path, row.file_sha256, row.size), f"{name}-{version}.safetensors", known, OCTETS)


def _version(name: str, version: int, uploaded: DatasetStore) -> tuple[DatasetVersion, UsedDataset]:
    for row, used in uploaded.versions(_checked_name(name)):
        if row.version == version:
            return row, used
    raise NotFound(f"the data set has no such version; GET /datasets/{name} lists them")


def _checked_name(name: str) -> str:
    # Postgres rejects some texts, such as one with a NUL, before it compares them.
    if not can_be_dataset(name) or "@" in name:
        raise NotFound("no data set of this name was uploaded", Fact.NO_DATASET)
    return name


def _built_in(name: str, dataset: Dataset) -> DatasetPublic:
    fields = {"name": name, "version": None, "dataset": name, "description": dataset.description, "created_at": None}
    return _described(fields, dataset.size, dataset.shape, dataset.classes, dataset.sha256)


def _public(row: DatasetVersion, used: UsedDataset) -> DatasetPublic:
    pinned = {"version": row.version, "dataset": f"{row.name}@{row.version}", "created_at": to_datetime(row.created_at)}
    fields = {"name": row.name, "description": row.description, **pinned}
    return _described(fields, used.images, used.shape, row.classes, row.sha256)


def _described(fields: dict[str, Any], images: int, shape: Any, classes: Any, sha256: str) -> DatasetPublic:
    train, validation, test = split_sizes(images, None, "random")
    sizes = {"train": train, "validation": validation, "test": test}
    return DatasetPublic(**fields, **sizes, images=images, shape=list(shape), classes=list(classes), sha256=sha256)
