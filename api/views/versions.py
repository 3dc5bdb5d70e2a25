"""What the API takes and answers about published versions and their champions."""

import re
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from worker.database.clock import to_datetime
from worker.database.tables import Artifact, Champion, ChampionMove, ModelVersion
from worker.errors import NotFound

MAX_NUMBER = 2**31 - 1  # of a version: what the database's column holds


def _without_nul(text: str) -> str:
    if "\0" in text:  # Postgres takes none
        raise ValueError("a text holds no NUL")
    return text


def _a_name(model: str) -> str:
    if "\0" in model:
        raise unpublished()
    return model


def unpublished() -> NotFound:
    """What to raise for a network without a version."""
    return NotFound("no version of that name is published; GET /models lists those that are")


ModelName = Annotated[str, Path(description="a network's name"), AfterValidator(_a_name)]
VersionNumber = Annotated[int, Path(ge=1, le=MAX_NUMBER)]
DatasetName = Annotated[str, Field(max_length=100), AfterValidator(_without_nul)]


class VersionPublic(BaseModel):
    """A published trial; it never changes."""

    model: str
    version: int
    champion: bool = Field(description="whether it answers for its network and data set")
    dataset: str
    dataset_sha256: str
    split: str
    objective: str
    value: float = Field(description="of the objective, on validation")
    job_id: str
    run: int = Field(description="of the job")
    trial: int
    params: dict[str, Any]
    shape: list[int] = Field(description="of one image: channels, height, width")
    classes: list[str]
    weights: int = Field(description="how many")
    val_accuracy: float
    val_loss: float
    test_accuracy: float | None = Field(description="of a job's winner; for others the test images stay closed")
    test_loss: float | None
    calibration: dict[str, Any] | None = Field(description="temperature, errors of calibration, limits of abstention")
    latency_seconds: float | None = Field(description="of one image on an idle core of its worker")
    checkpoint_sha256: str
    checkpoint_bytes: int
    onnx_sha256: str
    onnx_bytes: int
    code_version: str
    created_at: datetime | None

    @classmethod
    def of(cls, row: ModelVersion, checkpoint: Artifact, onnx: Artifact, champion: bool) -> Self:
        """The answer for a row, with its files."""
        return cls(
            **row.model_dump(include=set(cls.model_fields) - {"created_at"}),
            champion=champion,
            checkpoint_sha256=checkpoint.sha256,
            checkpoint_bytes=checkpoint.size,
            onnx_sha256=onnx.sha256,
            onnx_bytes=onnx.size,
            created_at=to_datetime(row.created_at),
        )


class ChampionPublic(BaseModel):
    """Which version answers for a network and a data set."""

    model: str
    dataset: str
    version: int
    moved_at: datetime | None = Field(description="since when")

    @classmethod
    def of(cls, row: Champion, version: ModelVersion) -> Self:
        """The answer for a row and the version that it names."""
        moved_at = to_datetime(row.moved_at)
        return cls(model=row.model, dataset=row.dataset, version=version.version, moved_at=moved_at)


class ModelPublic(BaseModel):
    """A network's champions by data set, and its published versions, the newest first."""

    model: str
    champions: list[ChampionPublic]
    versions: list[VersionPublic]


class Models(BaseModel):
    """Every network that has a published version."""

    items: list[ModelPublic]


class Promotion(BaseModel):
    """Which version shall answer from now on."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"version": 1}]})

    version: int = Field(ge=1, le=MAX_NUMBER)
    dataset: DatasetName | None = Field(None, description="the version's own, which is known without it")
    reason: Annotated[str, AfterValidator(_without_nul)] = Field(
        "chosen by hand", min_length=1, max_length=500, description="for the log"
    )


class Rollback(BaseModel):
    """Whose last move shall be undone."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dataset: DatasetName | None = Field(None, description="needed where the network has several champions")


class MovePublic(BaseModel):
    """A champion has been moved."""

    model: str
    dataset: str
    version: int = Field(description="which has answered from then on")
    previous: int | None = Field(description="which had answered before; null for the first")
    by: str = Field(description="rule, hand or rollback")
    reason: str
    at: datetime | None

    @classmethod
    def of(cls, row: ChampionMove, numbers: dict[int | None, int]) -> Self:
        """The answer for a row; `numbers` are those of versions by id."""
        return cls(
            **row.model_dump(include={"model", "dataset", "by", "reason"}),
            version=numbers[row.version_id],
            previous=numbers.get(row.previous_id),
            at=to_datetime(row.at),
        )


class MovePage(BaseModel):
    """Some moves, the newest first."""

    items: list[MovePublic]
    next_cursor: str | None


def file_name(version: ModelVersion, suffix: str) -> str:
    """What a file of a version is called where it is downloaded to: plain ASCII, without a folder."""
    return f"{re.sub('[^A-Za-z0-9._-]', '_', version.model)}-{version.version}.{suffix}"
