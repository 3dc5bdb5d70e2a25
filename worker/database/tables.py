"""The tables. Instants are seconds since 1970 by the database's clock (`clock.py`)."""

from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Column, Index, Integer, Text, UniqueConstraint, false
from sqlmodel import Field, SQLModel

# One convention, so that a migration can name every constraint on both databases.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


PREDICTING = ("predict", "evaluate")  # the kinds of jobs that classify images


class JobState(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"  # accepted, nothing begun
    RUNNING = "running"  # at least one trial was begun
    PAUSED = "paused"  # somebody asked, or its files found no space; nothing is worked on until it is resumed
    STOPPING = "stopping"  # no more trials; running ones end, the winner is published
    COMPLETED = "completed"  # the winner is published
    FAILED = "failed"  # no trial can be published; `error` says why
    CANCELLED = "cancelled"  # somebody asked

    @property
    def final(self) -> bool:
        """Whether nothing more will happen."""
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED)


class StopReason(StrEnum):
    """Why a job begins no more trials."""

    TRIALS = "trials"
    SECONDS = "seconds"
    SPACE_EXHAUSTED = "space_exhausted"
    CANCELLED = "cancelled"
    FAILURES = "failures"


class PackPurpose(StrEnum):
    """What a pack is for."""

    TRAIN = "train"  # its trials are trained
    RUN_OFF = "run_off"  # the best are trained again on fresh seeds, to be compared
    PUBLISH = "publish"  # the job's winner becomes a version
    PREDICT = "predict"  # a version answers for many images


class UsedDataset(SQLModel, table=True):
    """A data set that some job was accepted for."""

    __tablename__ = "dataset"

    sha256: str = Field(primary_key=True)
    name: str
    images: int
    shape: list[int] = Field(sa_column=Column(JSON, nullable=False))
    classes: list[str] = Field(sa_column=Column(JSON, nullable=False))


class DatasetVersion(SQLModel, table=True):
    """A data set that somebody uploaded; never changed."""

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
    """What a person posted."""

    id: str = Field(primary_key=True)
    kind: str  # train, tune, predict or evaluate
    spec: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))  # as posted, defaults filled in
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
    run: int = 1  # raised when a completed job goes on
    # What a job of kind predict or evaluate found: worker.prediction.work.Result as JSON.
    result: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    sequence: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))  # the last change's number
    created_at: float = Field(index=True)
    started_at: float | None = None
    finished_at: float | None = None

    @property
    def predicts(self) -> bool:
        """Whether it classifies images with a published version: it has no trials, and nothing to be extended."""
        return self.kind in PREDICTING


class Pack(SQLModel, table=True):
    """What a worker claims: some trials that train as one. `losses` counts leases that ran out since it last got on."""

    __table_args__ = (Index(None, "job_id", "done"),)

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id")
    purpose: str
    key: str  # what its trials share
    lanes: int  # trials at once
    stream_seed: int | None = Field(default=None, sa_column=Column(BigInteger))
    position: int = 0  # steps taken of the stream
    done: bool = Field(default=False, index=True)
    deaths: int = 0  # trainers that died on it while its trial was alone
    lost_leases: int = Field(default=0, sa_column=Column("losses", Integer, nullable=False, server_default="0"))
    not_before: float | None = None  # when it may be claimed again after a loss
    # Made of another's trials: no more join.
    parted: bool = Field(default=False, sa_column=Column(Boolean, nullable=False, server_default=false()))
    lease_owner: str | None = None
    lease_epoch: int = 0  # raised by every claim; a write with an older one is refused
    lease_expires_at: float | None = None


class Trial(SQLModel, table=True):
    """One attempt at training."""

    __table_args__ = (UniqueConstraint("job_id", "number"), Index(None, "job_id", "sequence"))

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id")
    number: int
    pack_id: int = Field(foreign_key="pack.id", index=True)
    lane: int = 0
    state: str
    reason: str | None = Field(default=None, sa_column=Column(Text))  # why it ended
    # All hyper-parameters as trained, and what was drawn by Optuna's flat names.
    params: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    suggestion: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    attrs: dict[str, Any] = Field(default_factory=dict, sa_column=Column(JSON, nullable=False))  # Optuna's notes
    # What somebody enqueued, by Optuna's flat names; the rest is drawn.
    enqueued: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    flops: int | None = Field(default=None, sa_column=Column(BigInteger))  # of one image's forward pass
    weights: int | None = Field(default=None, sa_column=Column(BigInteger))  # how many
    init_seed: int | None = Field(default=None, sa_column=Column(BigInteger))
    start_step: int | None = None
    epochs_run: float = 0  # measured so far, in tenths
    best_epoch: float | None = None
    value: float | None = None  # the objective of the best epoch, once the trial is judged
    train_loss: float | None = None  # of the best epoch, as the next two
    val_loss: float | None = None
    val_accuracy: float | None = None
    seconds: float = 0.0  # training and evaluation
    sequence: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))  # the job's at the last change
    created_at: float
    finished_at: float | None = None


class Measurement(SQLModel, table=True):
    """One trial at one rung."""

    # Nullable, because the release before knew none of these three.
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
    """A trial's hyper-parameters trained once more, for the run-off of a run of its job: no trial, nor counted as one.

    Its state is that of a trial, None until it has ended.
    """

    __table_args__ = (UniqueConstraint("job_id", "run", "trial", "seed"),)

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id")
    run: int
    trial: int  # number
    seed: int  # which of the fresh seeds, from 0
    cut_seed: int = Field(sa_column=Column(BigInteger, nullable=False))  # that it makes of the job's
    pack_id: int = Field(foreign_key="pack.id", index=True)
    state: str | None = None
    reason: str | None = Field(default=None, sa_column=Column(Text))  # why it ended
    epochs_run: float = 0.0  # measured so far
    best_epoch: float | None = None
    val_loss: float | None = None  # of the best epoch, as the next
    val_accuracy: float | None = None
    seconds: float = 0.0  # training and evaluation
    predictions_id: int | None = Field(default=None, foreign_key="artifact.id")  # labels of its validation images


class RunOff(SQLModel, table=True):
    """What the run-off of a run of a job came to: ml.statistics.run_off_result.Verdict as JSON."""

    job_id: str = Field(foreign_key="job.id", primary_key=True)
    run: int = Field(primary_key=True)
    winner: int  # number of the trial
    verdict: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    at: float


class Artifact(SQLModel, table=True):
    """A file that a job made, under the artifact folder."""

    id: int | None = Field(default=None, primary_key=True)
    job_id: str = Field(foreign_key="job.id", index=True)
    trial: int  # number
    # checkpoint, onnx, test_outputs, predictions, rerun: labels it predicts; upload: images to predict; or pack: all
    # that it takes to go on with one.
    kind: str
    # Of kind pack; `trial` is then its first.
    pack_id: int | None = Field(default=None, foreign_key="pack.id", index=True)
    path: str  # the key in the store
    sha256: str
    size: int = Field(sa_column=Column(BigInteger, nullable=False))  # bytes
    created_at: float


class ModelVersion(SQLModel, table=True):
    """A trial, published: a job's winner, or one that no other beats in objective and size; never changed."""

    __table_args__ = (UniqueConstraint("model", "version"), UniqueConstraint("job_id", "run", "trial"))

    id: int | None = Field(default=None, primary_key=True)
    model: str
    version: int
    dataset: str
    dataset_sha256: str = Field(foreign_key="dataset.sha256")
    split: str
    objective: str  # with the loss it was computed from, where it is one
    value: float  # the objective on validation
    job_id: str = Field(foreign_key="job.id")
    run: int
    trial: int
    params: dict[str, Any] = Field(sa_column=Column(JSON, nullable=False))
    shape: list[int] = Field(sa_column=Column(JSON, nullable=False))
    classes: list[str] = Field(sa_column=Column(JSON, nullable=False))
    weights: int  # how many
    val_loss: float
    val_accuracy: float
    test_loss: float | None
    test_accuracy: float | None  # of the winner alone: for the others the test images stay closed
    checkpoint_id: int = Field(foreign_key="artifact.id")
    onnx_id: int = Field(foreign_key="artifact.id")
    code_version: str
    # Nullable, because the release before knew neither: the Calibration of ml.prediction as JSON, and the median
    # seconds of one image's forward pass on one core of the worker that published it.
    calibration: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    latency_seconds: float | None = None
    # SHA-256 of the layers that compute an answer; whoever has the same is not measured again on such a machine.
    architecture: str | None = Field(default=None, index=True)
    # Hardware and versions of the worker that published it; null where the release before did.
    environment: dict[str, Any] | None = Field(default=None, sa_column=Column(JSON(none_as_null=True)))
    created_at: float


class Champion(SQLModel, table=True):
    """Which version answers for a network and a data set."""

    model: str = Field(primary_key=True)
    dataset: str = Field(primary_key=True)
    version_id: int = Field(foreign_key="modelversion.id")
    moved_at: float


class ChampionMove(SQLModel, table=True):
    """A champion has been moved; rows are added and never changed."""

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
    """One look at the test images."""

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
    """A transition of a job or of one of its trials, in the order in which they were committed."""

    job_id: str = Field(foreign_key="job.id", primary_key=True)
    sequence: int = Field(sa_column=Column(BigInteger, primary_key=True, autoincrement=False))
    trial: int | None = None  # number; None for the job's own
    state: str
    detail: str | None = Field(default=None, sa_column=Column(Text))
    by: str | None = None  # who: a worker, or "request"
    at: float


class IdempotencyKey(SQLModel, table=True):
    """A request that created something, so that the same one again creates nothing."""

    key: str = Field(primary_key=True)
    sha256: str  # of the method, the path and the body
    job_id: str = Field(foreign_key="job.id")
    trial: int | None = None  # number, where it created one
    at: float = Field(index=True)


class JobGroup(SQLModel, table=True):
    """A collection of experiments that a person posted, each of them a job."""

    id: str = Field(primary_key=True)
    collection: str
    scale: float  # of images, trials and epochs, up to 1
    seed: int = Field(sa_column=Column(BigInteger, nullable=False))
    created_at: float = Field(index=True)


class GroupMember(SQLModel, table=True):
    """An experiment of a group, and the job that it is."""

    group_id: str = Field(foreign_key="jobgroup.id", primary_key=True)
    position: int = Field(primary_key=True, sa_column_kwargs={"autoincrement": False})
    experiment: str
    job_id: str = Field(foreign_key="job.id", index=True)
