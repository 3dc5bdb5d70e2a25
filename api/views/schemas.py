"""What the API answers."""

from datetime import datetime
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field

from ml.records import epochs_of
from ml.specs import MAX_TRIALS
from worker.database.clock import to_datetime
from worker.database.tables import Event, Measurement, Trial


class Best(BaseModel):
    """The best trial of a job so far."""

    trial: int
    value: float  # of the job's objective, on validation


class VersionRef(BaseModel):
    """Which version a job's winner became."""

    model: str
    version: int


class Transition(BaseModel):
    """A job or a trial has come to another state."""

    state: str
    detail: str | None = Field(description="why")
    by: str | None = Field(description="who brought it there: `request`, or a worker")
    at: datetime | None


class JobPublic(BaseModel):
    """A job."""

    id: str
    kind: str = Field(description="train, tune or predict")
    state: str = Field(description="queued, running, paused, stopping, completed, failed or cancelled")
    stop_reason: str | None = Field(description="which limit ended it: trials, seconds, space_exhausted, …")
    error: str | None = Field(description="why it failed")
    model: str
    dataset: str
    objective: str | None = Field(None, description="what its trials are best at; null for a predict job")
    trials: dict[str, int] = Field(description="trials by state")
    trial_limit: int
    seconds_limit: float | None = Field(None, description="time with at least one trial running, at most")
    run: int = Field(1, description="raised when a job that has ended goes on")
    lanes: int | None = Field(description="trials that train together, fixed when the job first ran")
    active_seconds: float = Field(description="time with at least one trial running")
    best: Best | None
    version: VersionRef | None = Field(description="what the winner was published as")
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class PredictionResult(BaseModel):
    """What a predict job found. Accuracy is that of the label, whether or not the version abstained."""

    images: int = Field(description="unusable ones included")
    unusable: int
    abstained: int
    labelled: int = Field(description="images whose class is known")
    accuracy: float | None = Field(description="share of those, 0 to 1")
    interval: tuple[float, float] | None = Field(
        None, description="of 95 %, by Wilson's score: what the accuracy of so many images speaks for"
    )
    confusion_matrix: list[list[int]] | None = Field(
        description="of those: a row a true class, a column a predicted one"
    )
    classes: list[str]


class JobDetail(JobPublic):
    """A job with what was asked and what happened."""

    spec: dict[str, Any]
    result: PredictionResult | None = Field(
        None, description="what a job of kind predict or evaluate found, once it has completed"
    )
    history: list[Transition]

    @staticmethod
    def transition(event: Event) -> Transition:
        """A row of the history."""
        return Transition(state=event.state, detail=event.detail, by=event.by, at=to_datetime(event.at))


class JobPage(BaseModel):
    """Some jobs, the newest first."""

    items: list[JobPublic]
    next_cursor: str | None


class Validated(BaseModel):
    """What a job would be, were it submitted."""

    spec: dict[str, Any] = Field(description="as posted, defaults filled in")
    trial_limit: int
    seconds: float | None = Field(description="how long it may have work; null where nothing like it was measured here")
    measured_trials: int = Field(description="earlier trials that this was estimated from")


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
        return cls(epoch=epochs_of(row.step), **row.model_dump(include=set(cls.model_fields) - {"epoch"}))


class JobEvent(Transition):
    """Data of an event `job`: the job has come to another state."""

    event_name: ClassVar = "job"


class TrialEvent(Transition):
    """Data of an event `trial`: a trial has begun or ended."""

    event_name: ClassVar = "trial"

    number: int = Field(description="the trial's")


class EpochEvent(MeasurementPublic):
    """Data of an event `epoch`: a trial was measured."""

    event_name: ClassVar = "epoch"

    number: int = Field(description="the trial's")


Happening = JobEvent | TrialEvent | EpochEvent


class TrialPublic(BaseModel):
    """A trial. Losses and accuracy are those of its best epoch."""

    number: int
    state: str = Field(description="running, completed, pruned, stopped_early, diverged, failed or cancelled")
    reason: str | None = Field(description="why it ended")
    params: dict[str, Any] | None
    suggestion: dict[str, Any] | None = Field(None, description="what of them was drawn, by the names that Optuna uses")
    epochs_run: float = Field(description="measured so far")
    best_epoch: float | None
    value: float | None = Field(description="the job's objective, once the trial has ended")
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float | None
    seconds: float = Field(description="training and evaluation: its share of its pack's, which trains several at once")
    flops: int | None = Field(None, description="floating-point operations of one image's forward pass")
    weights: int | None = Field(None, description="how many")
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
    pack: int = Field(description="the trials that trained together share it")
    lane: int = Field(description="its place among them")
    fresh: list[str] | None = Field(
        None, description="where it begins with a version: the weights that are its own, as shapes differ there"
    )


class Limits(BaseModel):
    """The limits of a budget that may change; one that is left out stays."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    trials: int | None = Field(None, ge=1, le=MAX_TRIALS, description="trials in all; null for no limit")
    seconds: float | None = Field(None, gt=0, le=1e8, description="time with at least one trial running; or null")


class JobChange(BaseModel):
    """What of a job may change."""

    model_config = ConfigDict(extra="forbid", strict=True)

    budget: Limits


class Enqueued(BaseModel):
    """A configuration to be tried."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    params: dict[str, Any] = Field(
        max_length=100, description="hyper-parameters of the search space; those that are left out are drawn"
    )


class TrialPage(BaseModel):
    """Some trials of a job."""

    items: list[TrialPublic]
    next_cursor: str | None
