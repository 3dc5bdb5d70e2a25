"""The model of the ledger: jobs, packs, trials and claims as dataclasses, and the strategies of the steps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

from hypothesis import strategies as st
from sqlalchemy import select
from sqlmodel import SQLModel

from ml.records import TrialRecord, TrialState
from ml.specs import MAX_TRIALS, TrainSpec, TuneSpec
from worker.database.engine import Database
from worker.database.tables import JobState, PackPurpose
from worker.ledger.idempotency import Once
from worker.ledger.leases import Claim
from worker.publication.rows import Chosen

MOST_JOBS = 2  # unfinished jobs; few jobs with few trials, so that several steps concern the same ones
HOPELESS, MAX_LOSSES = 3, 3  # instead of the product's 10 and 5, so that few steps reach them
FOREVER = 1e7  # seconds: only a step ends a lease or a wait
PARAMS = {"batch_size": 32, "learning_rate": 0.01, "optimizer": "adam"}
SPACE = {"learning_rate": {"type": "float", "low": 1e-4, "high": 0.1, "log": True}, "batch_size": 32}

QUEUED, RUNNING, PAUSED = JobState.QUEUED, JobState.RUNNING, JobState.PAUSED
STOPPING, COMPLETED, FAILED, CANCELLED = JobState.STOPPING, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED
FINAL = {COMPLETED, FAILED, CANCELLED}
# As in the design; a job that has ended may run again.
MOVES = {
    QUEUED: {RUNNING, PAUSED, STOPPING, COMPLETED, FAILED, CANCELLED},
    RUNNING: {PAUSED, STOPPING, COMPLETED, FAILED, CANCELLED},
    PAUSED: {QUEUED, RUNNING, STOPPING, CANCELLED},
    STOPPING: {RUNNING, PAUSED, COMPLETED, FAILED, CANCELLED},
    COMPLETED: {QUEUED},
    FAILED: {QUEUED},
    CANCELLED: set(),
}
TABLES = [table for table in SQLModel.metadata.sorted_tables if table.name != "dataset"]

Sizes = tuple[int | None, int | None]
Rows = dict[str, list[dict[str, Any]]]  # by table, in the order of their keys

ANY = st.integers(0, 9)  # the choice among existing jobs, packs or trials; it wraps around
OWNER = st.integers(0, 2)
VALUE = st.sampled_from([0.3, 0.5, 0.8])  # few, so that some trials are equal
SIZES = st.tuples(*[st.sampled_from([1, 2, None])] * 2)  # FLOPs and weights
ENDS = [state for state in TrialState if state != TrialState.RUNNING]
END = st.sampled_from([TrialState.COMPLETED, TrialState.FAILED, *ENDS])
POSTED = {
    "trials": st.integers(1, 3),
    "seconds": st.sampled_from([None, None, 1000.0]),
    "maximize": st.booleans(),
    "train": st.sampled_from([False, False, False, True]),
    "keyed": st.booleans(),
}


# --- the model


@dataclass
class ModelJob:
    """The expected state of a job."""

    id: str
    train: bool
    maximize: bool
    trials_asked: int | None
    seconds: float | None
    state: JobState = QUEUED
    run: int = 1
    begun: bool = False
    used: float = 0.0  # seconds
    lanes: int | None = None
    trials: list["ModelTrial"] = field(default_factory=list)
    best: "ModelTrial | None" = None
    versions: dict[int, tuple[int, float]] = field(default_factory=dict)  # trial and value, by run
    unpublishable: bool = False  # the publication of the winner failed for good in this run
    seen: int = 0  # the last change that its search has read
    records: dict[int, TrialRecord] = field(default_factory=dict)  # those that the search knows

    @property
    def limit(self) -> int:
        return 1 if self.train else self.trials_asked or MAX_TRIALS

    @property
    def failures(self) -> int:
        return sum(trial.state == TrialState.FAILED for trial in self.trials)

    @property
    def out_of_time(self) -> bool:
        return self.seconds is not None and self.used >= self.seconds

    @property
    def spent(self) -> bool:
        """True if its limits allow no more trials."""
        hopeless = self.best is None and self.failures >= HOPELESS
        return hopeless or len(self.trials) >= self.limit or self.out_of_time


@dataclass(eq=False)
class ModelPack:
    """The expected state of a pack."""

    id: int
    job: ModelJob
    purpose: PackPurpose
    epoch: int
    lanes: int
    parted: bool = False
    owner: str | None = None
    leased: bool = False
    expired: bool = False  # its lease has run out, but no worker has noticed
    waits: bool = False
    done: bool = False
    lost_leases: int = 0
    deaths: int = 0
    files: list[str] = field(default_factory=list)  # of its checkpoints, the newest first

    @property
    def running(self) -> list["ModelTrial"]:
        return [t for t in self.job.trials if t.pack is self and t.state == TrialState.RUNNING]

    @property
    def makes_good(self) -> bool:
        return any(trial.makes_good for trial in self.running)

    def let_go(self) -> None:
        self.owner, self.leased, self.expired = None, False, False

    def end(self) -> None:
        self.let_go()
        self.done, self.waits, self.files = True, False, []


@dataclass(eq=False)
class ModelTrial:
    """The expected state of a trial."""

    number: int
    pack: ModelPack
    state: TrialState = TrialState.RUNNING
    suggested: bool = False
    started: bool = False
    rungs: dict[int, float | None] = field(default_factory=dict)
    value: float | None = None
    sizes: tuple[float, float] = (inf, inf)  # FLOPs and weights
    file: str | None = None  # of its checkpoint
    discarded: bool = False  # its checkpoint was damaged once
    makes_good: bool = False  # it runs again to replace a damaged checkpoint

    def again(self, pack: ModelPack) -> None:
        """Start again from the beginning in another pack."""
        self.pack, self.state, self.makes_good = pack, TrialState.RUNNING, False
        self.started, self.rungs, self.value = False, {}, None


@dataclass(eq=False)
class Held:
    """A claim that a worker got and may have lost."""

    claim: Claim
    pack: ModelPack
    winner: Chosen | None = None  # as the publishing worker read it
    given_back: bool = False

    @property
    def good(self) -> bool:
        """True if the pack is not done and no later claim exists."""
        return not self.pack.done and self.pack.epoch == self.claim.epoch


@dataclass(frozen=True)
class Sent:
    """A request with an Idempotency-Key, and what it created."""

    once: Once
    job: ModelJob
    spec: TrainSpec | TuneSpec | None  # None if the request enqueued a trial
    trial: int | None = None


def rank(job: ModelJob, value: float, number: int) -> tuple[float, int]:
    """Return a rank: higher is better, and of equal values the earlier trial ranks higher."""
    return (value if job.maximize else -value, -number)


def beats(job: ModelJob, one: ModelTrial, other: ModelTrial) -> bool:
    """Return whether `other` is better in none of value, FLOPs and weights; of equal trials the first beats."""
    assert one.value is not None
    assert other.value is not None
    sign = -1 if job.maximize else 1
    mine, its = (sign * one.value, *one.sizes), (sign * other.value, *other.sizes)
    return all(a <= b for a, b in zip(mine, its, strict=True)) and (mine != its or one.number < other.number)


def pick(things: Sequence[Any], which: int) -> Any:
    """Return the thing with number `which`, which wraps around."""
    return things[which % len(things)]


def read(database: Database) -> Rows:
    """Return all rows, by table."""
    with database.reading() as session:
        return {
            table.name: [dict(row) for row in session.execute(select(table).order_by(*table.primary_key)).mappings()]
            for table in TABLES
        }


def differences(one: Rows, other: Rows) -> dict[str, Any]:
    """Return, by table, the rows that only one side has."""
    names = [name for name in one if one[name] != other[name]]
    return {
        name: ([r for r in one[name] if r not in other[name]], [r for r in other[name] if r not in one[name]])
        for name in names
    }


def empty(database: Database) -> None:
    """Delete all rows.

    Every example needs a database without jobs, because a claim looks at all jobs. Deleting the rows takes a few
    milliseconds on both kinds. A new Postgres database takes 100 ms, and so does TRUNCATE, which makes new files for
    every table and index.
    """
    with database.writing() as session:
        for table in reversed(TABLES):
            session.execute(table.delete())
