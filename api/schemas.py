"""What the API answers."""

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from worker.clock import to_datetime
from worker.tables import Event, Measurement, ModelVersion, Trial


class Best(BaseModel):
    """The best trial of a job so far."""

    trial: int
    value: float  # of the job's objective, on validation


class VersionRef(BaseModel):
    """Which version a job's winner became."""

    model: str
    version: int


class Transition(BaseModel):
    """One step of a job's history."""

    state: str
    detail: str | None
    at: datetime | None


class JobPublic(BaseModel):
    """A job."""

    id: str
    kind: str = Field(description="train or tune")
    state: str = Field(description="queued, running, stopping, completed, failed or cancelled")
    stop_reason: str | None = Field(description="which limit ended it: trials, seconds, space_exhausted, …")
    error: str | None = Field(description="why it failed")
    model: str
    dataset: str
    trials: dict[str, int] = Field(description="trials by state")
    trial_limit: int
    lanes: int | None = Field(description="trials that train together, fixed when the job first ran")
    active_seconds: float = Field(description="time with at least one trial running")
    best: Best | None
    version: VersionRef | None = Field(description="what the winner was published as")
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class JobDetail(JobPublic):
    """A job with what was asked and what happened."""

    spec: dict[str, Any]
    history: list[Transition]

    @staticmethod
    def transition(event: Event) -> Transition:
        """A row of the history."""
        return Transition(state=event.state, detail=event.detail, at=to_datetime(event.at))


class JobPage(BaseModel):
    """Some jobs, the newest first."""

    items: list[JobPublic]
    next_cursor: str | None


class MeasurementPublic(BaseModel):
    """One epoch of a trial."""

    epoch: float
    images_seen: int
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float | None
    seconds: float

    @classmethod
    def of(cls, row: Measurement) -> Self:
        """The answer for a row."""
        return cls(epoch=row.step / 10, **row.model_dump(include=set(cls.model_fields) - {"epoch"}))


class TrialPublic(BaseModel):
    """A trial. Losses and accuracy are those of its best epoch."""

    number: int
    state: str = Field(description="running, completed, pruned, stopped_early, diverged, failed or cancelled")
    reason: str | None = Field(description="why it ended")
    params: dict[str, Any] | None
    epochs_run: float = Field(description="measured so far")
    best_epoch: float | None
    value: float | None = Field(description="the job's objective, once the trial has ended")
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float | None
    seconds: float = Field(description="training and evaluation")
    created_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: Trial) -> Self:
        """The answer for a row."""
        instants = {"created_at": to_datetime(row.created_at), "finished_at": to_datetime(row.finished_at)}
        return cls(**row.model_dump(include=set(cls.model_fields) - set(instants)), **instants)


class TrialDetail(TrialPublic):
    """A trial with every epoch, and what it takes to run it again."""

    measurements: list[MeasurementPublic] = []
    init_seed: int | None
    stream_seed: int | None = None
    start_step: int | None


class TrialPage(BaseModel):
    """Some trials of a job."""

    items: list[TrialPublic]
    next_cursor: str | None


class VersionPublic(BaseModel):
    """A published winner; it never changes."""

    model: str
    version: int
    champion: bool = Field(description="whether it answers for its network and data set")
    dataset: str
    dataset_sha256: str
    split: str
    objective: str
    job_id: str
    trial: int
    params: dict[str, Any]
    weights: int = Field(description="how many")
    val_accuracy: float
    val_loss: float
    test_accuracy: float
    test_loss: float | None
    checkpoint_sha256: str
    code_version: str
    created_at: datetime | None

    @classmethod
    def of(cls, row: ModelVersion, champion: bool, checkpoint_sha256: str) -> Self:
        """The answer for a row."""
        own = {"champion", "checkpoint_sha256", "created_at"}
        return cls(
            **row.model_dump(include=set(cls.model_fields) - own),
            champion=champion,
            checkpoint_sha256=checkpoint_sha256,
            created_at=to_datetime(row.created_at),
        )


class ModelPublic(BaseModel):
    """A network's published versions, the newest first."""

    model: str
    versions: list[VersionPublic]


class Models(BaseModel):
    """Every network that has a published version."""

    items: list[ModelPublic]
