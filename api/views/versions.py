"""The public form of published versions, champions and their moves, and the requests about them."""

import re
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from worker.database.clock import to_datetime
from worker.database.tables import Artifact, Champion, ChampionMove, ModelVersion
from worker.errors import Fact, NotFound

MAX_NUMBER = 2**31 - 1  # of a version: the largest value of the database column


def _without_nul(text: str) -> str:
    if "\0" in text:  # Postgres rejects a NUL
        raise ValueError("must not contain a NUL character")
    return text


def _checked_name(model: str) -> str:
    if "\0" in model:
        raise unpublished()
    return model


def unpublished() -> NotFound:
    """Return the error for a network without a published version."""
    return NotFound("this network has no published version", Fact.NO_VERSION)


ModelName = Annotated[str, Path(description="a network's name"), AfterValidator(_checked_name)]
VersionNumber = Annotated[int, Path(ge=1, le=MAX_NUMBER, description="the version's number")]
DatasetName = Annotated[str, Field(max_length=100), AfterValidator(_without_nul)]


class VersionPublic(BaseModel):
    """A version: a published trial, which never changes."""

    model: str
    version: int
    champion: bool = Field(description="true if it is the champion of its network and data set")
    dataset: str
    dataset_sha256: str
    split: str
    objective: str
    value: float = Field(description="value of the objective on validation images")
    job_id: str
    run: int = Field(description="run of the job")
    trial: int
    params: dict[str, Any]
    shape: list[int] = Field(description="shape of one image: channels, height, width")
    classes: list[str]
    weights: int = Field(description="number of weights")
    val_accuracy: float
    val_loss: float
    test_accuracy: float | None = Field(description="null unless the trial won its job; only then is the test set used")
    test_loss: float | None
    calibration: dict[str, Any] | None = Field(description="temperature, calibration errors and abstention limits")
    latency_seconds: float | None = Field(description="latency of one image on an idle core of its worker")
    checkpoint_sha256: str
    checkpoint_bytes: int
    onnx_sha256: str
    onnx_bytes: int
    code_version: str
    created_at: datetime | None

    @classmethod
    def of(cls, row: ModelVersion, checkpoint: Artifact, onnx: Artifact, champion: bool) -> Self:
        """Return the public form of a row and its files."""
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
    """The champion: the version that serves a network and a data set."""

    model: str
    dataset: str
    version: int
    moved_at: datetime | None = Field(description="time since when this version is the champion")

    @classmethod
    def of(cls, row: Champion, version: ModelVersion) -> Self:
        """Return the public form of a row and its version."""
        moved_at = to_datetime(row.moved_at)
        return cls(model=row.model, dataset=row.dataset, version=version.version, moved_at=moved_at)


class ModelPublic(BaseModel):
    """A network's champions by data set, and its published versions, newest first."""

    model: str
    champions: list[ChampionPublic]
    versions: list[VersionPublic]


class Models(BaseModel):
    """All networks with a published version."""

    items: list[ModelPublic]


class Promotion(BaseModel):
    """A version to promote to champion."""

    model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"version": 1}]})

    version: int = Field(ge=1, le=MAX_NUMBER)
    dataset: DatasetName | None = Field(
        None, description="data set of the version; optional, checked against the version if given"
    )
    reason: Annotated[str, AfterValidator(_without_nul)] = Field(
        "chosen by hand", min_length=1, max_length=500, description="reason for the champion history"
    )


class Rollback(BaseModel):
    """A champion whose last move to undo."""

    model_config = ConfigDict(extra="forbid", strict=True)

    dataset: DatasetName | None = Field(
        None, description="data set of the champion; required if the network has several champions"
    )


class MovePublic(BaseModel):
    """A move of a champion from one version to another."""

    model: str
    dataset: str
    version: int = Field(description="version that became the champion")
    previous: int | None = Field(description="champion before the move; null for the first champion")
    by: str = Field(description="cause of the move: rule, hand or rollback")
    reason: str
    at: datetime | None

    @classmethod
    def of(cls, row: ChampionMove, numbers: dict[int | None, int]) -> Self:
        """Return the public form of a row; `numbers` maps row ids to version numbers."""
        return cls(
            **row.model_dump(include={"model", "dataset", "by", "reason"}),
            version=numbers[row.version_id],
            previous=numbers.get(row.previous_id),
            at=to_datetime(row.at),
        )


class MovePage(BaseModel):
    """A page of moves, newest first."""

    items: list[MovePublic]
    next_cursor: str | None


def file_name(version: ModelVersion, suffix: str) -> str:
    """Return the name of a version's downloaded file: plain ASCII, without a folder."""
    return f"{re.sub('[^A-Za-z0-9._-]', '_', version.model)}-{version.version}.{suffix}"
