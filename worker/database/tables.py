"""The tables. Instants are seconds since 1970 by the database's clock (`clock.py`)."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, Text, UniqueConstraint, false
from sqlmodel import Field, SQLModel

from ml.specs import RULES

# One convention, so that a migration can name every constraint on both databases.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


PREDICTING = ("predict", "evaluate")  # the kinds of jobs that classify images


class JobState(StrEnum):
    """The states of a job."""

    QUEUED = "queued"  # accepted; no work has begun
    RUNNING = "running"  # a worker has begun the work
    PAUSED = "paused"  # by request, or because the store is full; no work until it is resumed
    STOPPING = "stopping"  # no more trials begin; run-off and publication follow
    COMPLETED = "completed"  # the winner is published, or the images are classified
    FAILED = "failed"  # no trial can be published, or the images cannot be classified; `error` says why
    CANCELLED = "cancelled"  # by request

    @property
    def final(self) -> bool:
        """True if the job has ended."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class StopReason(StrEnum):
    """The limits and causes that stop a job from beginning more trials."""

    TRIALS = "trials"
    SECONDS = "seconds"
    SPACE_EXHAUSTED = "space_exhausted"
    CANCELLED = "cancelled"
    FAILURES = "failures"


class PackPurpose(StrEnum):
    """The kinds of work that a pack can be for."""

    TRAIN = "train"  # its trials are trained
    RUN_OFF = "run_off"  # the best trials are trained again on fresh seeds, to be compared
    PUBLISH = "publish"  # the job's winner becomes a version
    PREDICT = "predict"  # a version classifies many images


class UsedDataset(SQLModel, table=True):
    """A data set that at least one job was accepted for."""

    __tablename__ = "dataset"

    sha256: str = Field(primary_key=True)
    name: str
    images: int
    shape: list[int] = Field(sa_column=Column(JSON, nullable=False))
    classes: list[str] = Field(sa_column=Column(JSON, nullable=False))


class DatasetVersion(SQLModel, table=True):
    """A version of an uploaded data set; rows are never changed."""

    name: str = Field(primary_key=True)
    version: int = Field(primary_key=True)
    sha256: str = Field(foreign_key="dataset.sha256", index=True)
    classes: list[str] = Field(sa_column=Column(JSON, nullable=False))
    description: str = Field(sa_column=Column(Text, nullable=False))
    path: str  # the key in the store
    file_sha256: str
    size: int = Field(sa_column=Column(BigInteger, nullable=False))  # bytes
    created_at: float


class Job(SQLModel, table=True):
    """A job: its specification and its progress."""

    id: str = Field(primary_key=True)
    kind: str  # train, tune, predict or evaluate
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))  # as posted, defaults filled in
    rules: int = Field(default=RULES, sa_column=Column(Integer, nullable=False, server_default="1"))
    state: str = Field(index=True)
    stop_reason: str | None = None
    error: str | None = Field(default=None, sa_column=Column(Text))
    model: str
    dataset: str
    dataset_sha256: str = Field(foreign_key="dataset.sha256")
    maximize: bool  # whether a higher trial value is better
    trial_limit: int
    lanes: int | None = None  # trials that train together, fixed when the job first runs
    seconds_limit: float | None = None
    reserved: int = 0  # trials begun
    failures: int = 0  # trials that failed
    best_trial: int | None = None
    best_value: float | None = None
    active_seconds: float = 0.0  # time with a pack leased, up to active_since
    active_since: float | None = None
    run: int = 1  # raised each time the job runs again after its end
    # Of a predict or evaluate job: worker.prediction.work.Result as JSON.
    result: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    sequence: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))  # the last change's number
    created_at: float = Field(index=True)
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def predicts(self) -> bool:
        """True if the job classifies images with a published version; it has no trials and no budget."""
        return self.kind in PREDICTING


class Pack(SQLModel, table=True):
    """Trials that train together, claimed by one worker at a time."""

    __table_args__ = (Index(None, "job_id", "done"),)

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id")
    purpose: str
    key: str  # the hyper-parameters that its trials share, as text
    lanes: int  # trials at once
    stream_seed: int | None = Field(default=None, sa_column=Column(BigInteger))
    position: int = 0  # steps of the stream that were taken
    done: bool = Field(default=False, index=True)
    deaths: int = 0  # trainers that died on it while it had a single trial
    # Leases that ran out in a row, since its last checkpoint.
    lost_leases: int = Field(default=0, sa_column=Column("losses", Integer, nullable=False, server_default="0"))
    not_before: float | None = None  # it cannot be claimed before this instant
    # Its trials come from another pack, or it has given some away: no more trials join.
    parted: bool = Field(default=False, sa_column=Column(Boolean, nullable=False, server_default=false()))
    lease_owner: str | None = None
    lease_epoch: int = 0  # raised by every claim; a write with an older one is refused
    lease_expires_at: float | None = None


class Trial(SQLModel, table=True):
    """One network with its hyper-parameters, trained once."""

    __table_args__ = (UniqueConstraint("job_id", "number"), Index(None, "job_id", "sequence"))

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id")
    number: int
    pack_id: int = Field(foreign_key="pack.id", index=True)
    lane: int = 0
    state: str
    reason: str | None = Field(default=None, sa_column=Column(Text))  # why it ended
    # All hyper-parameters as trained, and the drawn ones by Optuna's flat names.
    params: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    suggestion: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    attrs: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))  # Optuna's notes
    # The values that a request gave, by Optuna's flat names; the sampler draws the rest.
    enqueued: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    flops: int | None = Field(default=None, sa_column=Column(BigInteger))  # of one image's forward pass
    weights: int | None = Field(default=None, sa_column=Column(BigInteger))  # their number
    init_seed: int | None = Field(default=None, sa_column=Column(BigInteger))
    start_step: int | None = None
    epochs_run: float = 0  # measured so far, a multiple of 0.1
    best_epoch: float | None = None
    value: float | None = None  # the objective of the best epoch; None until the trial is judged
    train_loss: float | None = None  # this and the next two: of the best epoch
    val_loss: float | None = None
    val_accuracy: float | None = None
    seconds: float = 0.0  # training and evaluation
    sequence: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))  # the job's at the last change
    created_at: float
    finished_at: float | None = None


class Measurement(SQLModel, table=True):
    """One trial at one rung."""

    # Nullable, because an older release has none of these three.
    __table_args__ = (Index(None, "job_id", "sequence"),)
    job_id: str | None = Field(default=None, foreign_key="job.id")
    sequence: int | None = Field(default=None, sa_column=Column(BigInteger))  # the job's when it was written
    lease_epoch: int | None = None  # the pack's when it was written

    trial_id: int = Field(foreign_key="trial.id", primary_key=True)
    step: int = Field(primary_key=True)  # tenths of an epoch
    images_seen: int = Field(sa_column=Column(BigInteger, nullable=False))
    train_loss: float | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    seconds: float


class Rerun(SQLModel, table=True):
    """One training of a trial's hyper-parameters in a run-off; it does not count as a trial.

    Its state is one of a trial's states, and None until it has ended.
    """

    __table_args__ = (UniqueConstraint("job_id", "run", "trial", "seed"),)

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id")
    run: int
    trial: int  # number
    seed: int  # which of the fresh seeds, from 0
    split_seed: int = Field(sa_column=Column("cut_seed", BigInteger, nullable=False))  # of its own data split
    pack_id: int = Field(foreign_key="pack.id", index=True)
    state: str | None = None
    reason: str | None = Field(default=None, sa_column=Column(Text))  # why it ended
    epochs_run: float = 0.0  # measured so far
    best_epoch: float | None = None
    val_loss: float | None = None  # this and the next: of the best epoch
    val_accuracy: float | None = None
    seconds: float = 0.0  # training and evaluation
    predictions_id: int | None = Field(
        default=None, foreign_key="artifact.id"
    )  # predicted labels of its validation images


class RunOff(SQLModel, table=True):
    """The result of one run-off: ml.statistics.run_off_result.Verdict as JSON."""

    job_id: str = Field(foreign_key="job.id", primary_key=True)
    run: int = Field(primary_key=True)
    winner: int  # number of the trial
    verdict: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    at: float


class Artifact(SQLModel, table=True):
    """A stored file of a job."""

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id", index=True)
    trial: int  # number
    # checkpoint, onnx, test_outputs, predictions, rerun (labels that a training of a run-off predicts), upload (images
    # to predict), or pack (the checkpoint of a pack).
    kind: str
    # Set for kind pack; `trial` is then the number of the pack's first trial.
    pack_id: int | None = Field(default=None, foreign_key="pack.id", index=True)
    path: str  # the key in the store
    sha256: str
    size: int = Field(sa_column=Column(BigInteger, nullable=False))  # bytes
    created_at: float


class ModelVersion(SQLModel, table=True):
    """A published trial: a job's winner, or another trial of its front; rows are never changed."""

    __table_args__ = (UniqueConstraint("model", "version"), UniqueConstraint("job_id", "run", "trial"))

    id: int | None = Field(default=None, primary_key=True)
    model: str
    version: int
    dataset: str
    dataset_sha256: str = Field(foreign_key="dataset.sha256")
    split: str
    objective: str  # val_accuracy, or val_loss with the name of the loss: val_loss:mse
    value: float  # the objective on validation
    job_id: str = Field(foreign_key="job.id")
    run: int
    trial: int
    params: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    shape: list[int] = Field(sa_column=Column(JSON, nullable=False))
    classes: list[str] = Field(sa_column=Column(JSON, nullable=False))
    weights: int  # their number
    val_loss: float
    val_accuracy: float
    test_loss: float | None
    test_accuracy: float | None  # None unless it is the winner: the test images are opened for the winner alone
    checkpoint_id: int = Field(foreign_key="artifact.id")
    onnx_id: int = Field(foreign_key="artifact.id")
    code_version: str
    # Nullable, because an older release has neither: ml.prediction.calibration.Calibration as JSON, and the median
    # seconds of one image's forward pass on one core of the worker that published it.
    calibration: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    latency_seconds: float | None = None
    # SHA-256 of the layers that compute an answer. Versions that share it share the latency on one kind of machine.
    architecture: str | None = Field(default=None, index=True)
    # Hardware and versions of the worker that published it; null if that was an older release.
    environment: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    created_at: float


class Champion(SQLModel, table=True):
    """The version that answers for a network and a data set."""

    model: str = Field(primary_key=True)
    dataset: str = Field(primary_key=True)
    version_id: int = Field(foreign_key="modelversion.id")
    moved_at: float


class ChampionMove(SQLModel, table=True):
    """One move of a champion; rows are added and never changed."""

    __table_args__ = (Index(None, "model", "dataset"),)

    id: int | None = Field(default=None, primary_key=True)
    model: str
    dataset: str
    version_id: int = Field(foreign_key="modelversion.id")
    previous_id: int | None = Field(default=None, foreign_key="modelversion.id")  # None for the first
    by: str  # rule, hand or rollback
    reason: str = Field(sa_column=Column(Text, nullable=False))
    at: float


class Opening(SQLModel, table=True):
    """One opening of the test images."""

    __tablename__ = "testopening"
    __table_args__ = (UniqueConstraint("job_id", "run"),)

    id: int | None = Field(default=None, primary_key=True)
    dataset_sha256: str = Field(foreign_key="dataset.sha256")
    split: str
    job_id: str = Field(foreign_key="job.id")
    run: int
    version_id: int | None = Field(default=None, foreign_key="modelversion.id")
    at: float


class Event(SQLModel, table=True):
    """A transition of a job or of one of its trials; sequence numbers are in the order of the commits."""

    job_id: str = Field(foreign_key="job.id", primary_key=True)
    sequence: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    trial: int | None = None  # number; None for the job's own
    state: str
    detail: str | None = Field(default=None, sa_column=Column(Text))
    by: str | None = None  # a worker's name, or "request"
    at: float


class IdempotencyKey(SQLModel, table=True):
    """A request that created something, kept so that the same request creates nothing more."""

    key: str = Field(primary_key=True)
    sha256: str  # of the method, the path and the body
    job_id: str = Field(foreign_key="job.id")
    trial: int | None = None  # number, if it created one
    at: float = Field(index=True)


class JobGroup(SQLModel, table=True):
    """A posted collection of experiments, each of which is a job."""

    id: str = Field(primary_key=True)
    collection: str
    scale: float  # of images, trials and epochs, up to 1
    seed: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: float = Field(index=True)


class GroupMember(SQLModel, table=True):
    """An experiment of a group, and its job."""

    group_id: str = Field(foreign_key="jobgroup.id", primary_key=True)
    position: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    experiment: str
    job_id: str = Field(foreign_key="job.id", index=True)
