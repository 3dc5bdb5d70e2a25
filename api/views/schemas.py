"""The public form of jobs, trials, measurements and events."""

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
    value: float  # the job's objective on validation images


class VersionRef(BaseModel):
    """The version that a job's winner was published as."""

    model: str
    version: int


class Transition(BaseModel):
    """A change of state of a job or a trial."""

    state: str
    detail: str | None = Field(description="reason for the change")
    by: str | None = Field(description="cause of the change: `request`, or the name of a worker")
    at: datetime | None


class JobPublic(BaseModel):
    """A job."""

    id: str
    kind: str = Field(description="train, tune, predict or evaluate")
    state: str = Field(description="queued, running, paused, stopping, completed, failed or cancelled")
    stop_reason: str | None = Field(description="why it ended: trials, seconds, space_exhausted, failures or cancelled")
    error: str | None = Field(description="why the job failed")
    model: str
    dataset: str
    objective: str | None = Field(None, description="value that trials are compared by; null for a predict job")
    trials: dict[str, int] = Field(description="number of trials by state")
    trial_limit: int = Field(
        description="number of trials after which no more start: that of the budget, or the points of a finite search "
        "space if there are fewer"
    )
    seconds_limit: float | None = Field(None, description="limit of active_seconds")
    run: int = Field(1, description="run of the job; raised when an ended job restarts")
    lanes: int | None = Field(description="number of trials that train together; fixed when the job first runs")
    rules: int = Field(
        description="rules of drawing, of sharing a pack's time and of deciding that the job keeps: 1 for jobs of "
        "release 0.2, else 2"
    )
    active_seconds: float = Field(description="time with at least one trial running, in seconds")
    best: Best | None
    version: VersionRef | None = Field(description="version that the winner was published as")
    created_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None


class PredictionResult(BaseModel):
    """The result of a predict job. Accuracy counts abstained images too, by their most likely class."""

    images: int = Field(description="number of images, including unusable ones")
    unusable: int
    abstained: int
    labelled: int = Field(description="number of images with a known label")
    accuracy: float | None = Field(description="share of correct labelled images, 0 to 1")
    interval: tuple[float, float] | None = Field(None, description="95 % interval of the accuracy (Wilson score)")
    confusion_matrix: list[list[int]] | None = Field(
        description="labelled images; rows: true classes, columns: predicted classes"
    )
    classes: list[str]


class JobDetail(JobPublic):
    """A job with its specification, result and history."""

    spec: dict[str, Any]
    result: PredictionResult | None = Field(
        None, description="result of a completed job of kind predict or evaluate; null for other jobs"
    )
    history: list[Transition]

    @staticmethod
    def transition(event: Event) -> Transition:
        """Return an entry of the history."""
        return Transition(state=event.state, detail=event.detail, by=event.by, at=to_datetime(event.at))


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    items: list[JobPublic]
    next_cursor: str | None


class Validated(BaseModel):
    """The job that a valid specification would create."""

    spec: dict[str, Any] = Field(description="the specification with all defaults")
    trial_limit: int = Field(description="number of trials after which no more start")
    seconds: float | None = Field(
        description="estimated active seconds of the job; null if no similar job has run here"
    )
    measured_trials: int = Field(description="number of earlier trials that the estimate is based on")


class MeasurementPublic(BaseModel):
    """A measurement of a trial, after an epoch or after some tenths of one."""

    epoch: float
    images_seen: int
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float | None
    seconds: float

    @classmethod
    def of(cls, row: Measurement) -> Self:
        """Return the public form of a row."""
        return cls(epoch=epochs_of(row.step), **row.model_dump(include=set(cls.model_fields) - {"epoch"}))


class JobEvent(Transition):
    """Data of an event `job`: the job changed its state."""

    event_name: ClassVar = "job"


class TrialEvent(Transition):
    """Data of an event `trial`: a trial started or ended."""

    event_name: ClassVar = "trial"

    number: int = Field(description="the trial's number")


class EpochEvent(MeasurementPublic):
    """Data of an event `epoch`: a trial was measured."""

    event_name: ClassVar = "epoch"

    number: int = Field(description="the trial's number")


EventData = JobEvent | TrialEvent | EpochEvent


class TrialPublic(BaseModel):
    """A trial. Losses and accuracy are those of its best epoch."""

    number: int
    state: str = Field(description="running, completed, pruned, stopped_early, diverged, failed or cancelled")
    reason: str | None = Field(description="why the trial ended")
    params: dict[str, Any] | None
    suggestion: dict[str, Any] | None = Field(None, description="the sampled parameters, by their names in Optuna")
    epochs_run: float = Field(description="epochs measured so far")
    best_epoch: float | None
    value: float | None = Field(description="value of the job's objective; null until the trial has ended")
    train_loss: float | None
    val_loss: float | None
    val_accuracy: float | None
    seconds: float = Field(
        description="training and evaluation: the trial's share of the time of its pack, by what a step of the trial "
        "takes alone; in jobs with rules 1 all trials of a pack have equal shares"
    )
    flops: int | None = Field(None, description="floating-point operations of one image's forward pass")
    weights: int | None = Field(None, description="number of weights")
    created_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, row: Trial) -> Self:
        """Return the public form of a row."""
        instants = {"created_at": to_datetime(row.created_at), "finished_at": to_datetime(row.finished_at)}
        return cls(**row.model_dump(include=set(cls.model_fields) - set(instants)), **instants)


class TrialDetail(TrialPublic):
    """A trial with its measurements, and the seeds that repeat it."""

    measurements: list[MeasurementPublic] = []
    init_seed: int | None
    stream_seed: int | None = None
    start_step: int | None
    pack: int = Field(description="id of the pack; trials that train together share it")
    lane: int = Field(description="position in the pack")
    fresh: list[str] | None = Field(
        None, description="if the trial starts from a version: names of weights initialized anew as their shapes differ"
    )


class Limits(BaseModel):
    """New limits of a budget; a limit that is left out does not change."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    trials: int | None = Field(None, ge=1, le=MAX_TRIALS, description="total number of trials; null: no limit")
    seconds: float | None = Field(
        None, gt=0, le=1e8, description="time with at least one trial running, in seconds; null: no limit"
    )


class JobChange(BaseModel):
    """A change of a job."""

    model_config = ConfigDict(extra="forbid", strict=True)

    budget: Limits


class Enqueued(BaseModel):
    """A configuration to try."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    params: dict[str, Any] = Field(
        max_length=100, description="hyper-parameters of the search space; the sampler chooses those left out"
    )


class TrialPage(BaseModel):
    """A page of a job's trials."""

    items: list[TrialPublic]
    next_cursor: str | None
