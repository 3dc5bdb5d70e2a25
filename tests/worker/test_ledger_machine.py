"""The ledger against a model of it: whatever people, workers and their deaths do in whatever order.

Hypothesis draws the steps. Each is done for real and to a few dataclasses, and after each all rows are held against
these and against what the design promises. Where the product's rule is intricate (what follows when a job's last pack
has ended) the model does not repeat it: it takes over what the ledger decided, and the invariants judge that.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import select, update
from sqlmodel import SQLModel, col
from worker_tools import FILE, measurement, tune_spec

from ml.errors import SpecError
from ml.records import Event, Finished, Measured, Started, Stop, TrialRecord, TrialState
from ml.specs import MAX_TRIALS, TrainSpec, TuneSpec
from worker import leases as leases_module
from worker import settlement as settlement_module
from worker.controls import Controls
from worker.db import Database
from worker.errors import Conflict, KeyReused, LeaseLost, NotFound
from worker.leases import FIRST_WAIT, LONGEST_WAIT, MAX_DEATHS, Claim, Leases
from worker.ledger import Ledger
from worker.once import Once
from worker.publishing import Published, Publishing, Winner
from worker.tables import Artifact, Job, JobState, Pack, Purpose

QUICK, LONG = 20, 70  # examples on each database, in `make test` and more in `make check`
STEPS = 40  # of an example
MOST_JOBS = 2  # few jobs with few trials: that their packs and budgets touch is what is interesting
HOPELESS, MAX_LOSSES = 3, 3  # in place of the product's 10 and 5, so that few steps lead there
FOREVER = 1e7  # seconds: no lease and no wait ends by itself here, only where a step says so
PARAMS = {"batch_size": 32, "learning_rate": 0.01, "optimizer": "adam"}
SPACE = {"learning_rate": {"type": "float", "low": 1e-4, "high": 0.1, "log": True}, "batch_size": 32}

QUEUED, RUNNING, PAUSED = JobState.QUEUED, JobState.RUNNING, JobState.PAUSED
STOPPING, COMPLETED, FAILED, CANCELLED = JobState.STOPPING, JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED
FINAL = {COMPLETED, FAILED, CANCELLED}
# As the design draws them, with what its words add: a job that has ended goes on as another run of it.
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

Rows = dict[str, list[dict[str, Any]]]  # by table, in the order of their keys

ANY = st.integers(0, 9)  # which of what there is, by turns
OWNER = st.integers(0, 2)
VALUE = st.sampled_from([0.3, 0.5, 0.8])  # few, so that trials are equal now and then
SIZE = st.sampled_from([1, 2, None])  # FLOPs and weights
END = st.sampled_from([state for state in TrialState if state != TrialState.RUNNING])


# --- the model


@dataclass
class ModelJob:
    """A job as it ought to be."""

    id: str
    train: bool
    maximize: bool
    trials_asked: int | None
    seconds: float | None
    state: JobState = QUEUED
    run: int = 1
    begun: bool = False
    used: float = 0.0  # of its seconds
    lanes: int | None = None
    trials: list["ModelTrial"] = field(default_factory=list)
    best: "ModelTrial | None" = None
    versions: dict[int, tuple[int, float]] = field(default_factory=dict)  # trial and value by run
    unpublishable: bool = False  # the winner's publication failed for good in this run
    seen: int = 0  # up to where a search has read its changes
    records: dict[int, TrialRecord] = field(default_factory=dict)  # what the search knows

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
        """Whether it may begin no more trials, whatever its state."""
        hopeless = self.best is None and self.failures >= HOPELESS
        return hopeless or len(self.trials) >= self.limit or self.out_of_time


@dataclass(eq=False)
class ModelPack:
    """A pack as it ought to be."""

    id: int
    job: ModelJob
    purpose: Purpose
    epoch: int
    lanes: int
    parted: bool = False
    owner: str | None = None
    leased: bool = False
    expired: bool = False  # its lease, and nobody has noticed
    waits: bool = False
    done: bool = False
    losses: int = 0
    deaths: int = 0
    files: list[str] = field(default_factory=list)  # of its checkpoints, the newest first

    @property
    def running(self) -> list["ModelTrial"]:
        return [t for t in self.job.trials if t.pack is self and t.state == TrialState.RUNNING]

    def let_go(self) -> None:
        self.owner, self.leased, self.expired = None, False, False

    def end(self) -> None:
        self.let_go()
        self.done, self.files = True, []


@dataclass(eq=False)
class ModelTrial:
    """A trial as it ought to be."""

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

    def again(self, pack: ModelPack) -> None:
        """Run again from the start."""
        self.pack, self.state = pack, TrialState.RUNNING
        self.started, self.rungs, self.value = False, {}, None


@dataclass(eq=False)
class Held:
    """A claim that a worker got, good or not by now."""

    claim: Claim
    pack: ModelPack
    winner: Winner | None = None  # as its publisher read it
    given_back: bool = False

    @property
    def good(self) -> bool:
        """Whether nobody else has claimed the pack, and it is not done."""
        return not self.pack.done and self.pack.epoch == self.claim.epoch


@dataclass(frozen=True)
class Sent:
    """A request with an Idempotency-Key, and what it created."""

    once: Once
    job: ModelJob
    spec: TrainSpec | TuneSpec | None  # None where it enqueued a trial
    trial: int | None = None


def rank(job: ModelJob, value: float, number: int) -> tuple[float, int]:
    """The higher, the better; of equals the trial that was begun first."""
    return (value if job.maximize else -value, -number)


def beats(job: ModelJob, one: ModelTrial, other: ModelTrial) -> bool:
    """Whether the other is nowhere better: not in its value, its FLOPs or its weights. Of equals the first is kept."""
    assert one.value is not None
    assert other.value is not None
    sign = -1 if job.maximize else 1
    mine, its = (sign * one.value, *one.sizes), (sign * other.value, *other.sizes)
    return all(a <= b for a, b in zip(mine, its, strict=True)) and (mine != its or one.number < other.number)


def pick(things: list[Any], which: int) -> Any:
    """One of several, by turns."""
    return things[which % len(things)]


def read(database: Database) -> Rows:
    """All rows there are."""
    with database.reading() as session:
        return {
            table.name: [dict(row) for row in session.execute(select(table).order_by(*table.primary_key)).mappings()]
            for table in TABLES
        }


def empty(database: Database) -> None:
    """Delete all rows.

    Every example needs a database without jobs, as a claim looks at all of them. One database a test that is emptied
    costs some milliseconds, the same on both kinds; a new one of Postgres costs 100, and TRUNCATE, which makes new
    files for every table and index, about as much.
    """
    with database.writing() as session:
        for table in reversed(TABLES):
            session.execute(table.delete())


class LedgerMachine(RuleBasedStateMachine):
    """A ledger, three workers and people who ask for things, beside the model."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        empty(database)
        self.database = database
        self.ledger, self.controls, self.publishing = Ledger(database), Controls(database), Publishing(database)
        self.owners = [Leases(database, name, FOREVER) for name in ("one", "two", "three")]
        self.jobs: list[ModelJob] = []
        self.packs: dict[int, ModelPack] = {}
        self.claims: list[Held] = []
        self.sent: list[Sent] = []
        # Files: all that were written, those that the ledger said nobody needs, and those that it may leave about.
        self.written: set[str] = set()
        self.unneeded: set[str] = set()
        self.left: set[str] = set()
        self.ended_as: dict[str, Rows] = {}  # the rows of jobs that were cancelled, as they were then
        self.rows = read(database)  # after the last step
        self.earlier = self.rows  # after the step before

    # --- what the steps are made of

    def held(self, purpose: Purpose | None = None) -> list[Held]:
        """Claims that somebody works on."""
        return [h for h in self.claims if h.good and not h.given_back and purpose in (None, h.claim.purpose)]

    def open_packs(self, job: ModelJob) -> list[ModelPack]:
        return [pack for pack in self.packs.values() if pack.job is job and not pack.done]

    def leases(self, held: Held) -> Leases:
        """Those of the worker that made a claim."""
        return next(one for one in self.owners if one.owner == held.pack.owner)

    def unchanged(self) -> None:
        """Assert that this step has changed nothing yet."""
        assert read(self.database) == self.rows

    def refused(self, error: type[Exception], ask: Callable[[], Any]) -> None:
        """Assert that something is refused, and that nothing comes of it."""
        with pytest.raises(error):
            ask()
        self.unchanged()

    def again_nothing(self, ask: Callable[[], Any]) -> None:
        """Assert that to ask once more changes nothing."""
        before = read(self.database)
        ask()

        assert read(self.database) == before

    def set_row(self, table: type[SQLModel], id_: Any, **values: Any) -> None:
        """What only time brings about: the database's clock is ours here."""
        with self.database.writing() as session:
            session.execute(update(table).where(col(table.id) == id_).values(**values))  # type: ignore[attr-defined]

    def file(self, name: str) -> str:
        """The path of a file that was written just now."""
        path = f"{name}.{len(self.written)}"
        self.written.add(path)
        return path

    def new_packs(self, job: ModelJob) -> list[ModelPack]:
        """The packs of a job that the model does not know yet, and now does."""
        with self.database.reading() as session:
            of_job = (col(Pack.job_id) == job.id, col(Pack.id).not_in(self.packs))
            rows = session.scalars(select(Pack).where(*of_job).order_by(col(Pack.id))).all()
        new = [ModelPack(p.id or 0, job, Purpose(p.purpose), p.lease_epoch, p.lanes, p.parted) for p in rows]
        self.packs |= {pack.id: pack for pack in new}
        return new

    def new_pack(self, job: ModelJob) -> ModelPack:
        (pack,) = self.new_packs(job)
        return pack

    def follow(self, job: ModelJob) -> None:
        """Take over what the ledger made of a job after a change.

        It moves on only where nothing is at work and no more is to be begun, and there it does.
        """
        with self.database.reading() as session:
            state = JobState(session.get_one(Job, job.id).state)
        idle = job.state not in (*FINAL, PAUSED) and not self.open_packs(job)
        if not idle or not (job.spent or job.state == STOPPING):
            assert state == job.state
            return
        assert state in (STOPPING, COMPLETED, FAILED)
        job.state = state
        assert [pack.purpose for pack in self.new_packs(job)] == [Purpose.PUBLISH] * (state == STOPPING)

    def end_trials(self, pack: ModelPack, state: TrialState) -> None:
        for trial in pack.running:
            trial.state = state

    def reopened(self, job: ModelJob) -> None:
        job.state, job.run, job.unpublishable = QUEUED, job.run + 1, False

    def suspected(self, pack: ModelPack) -> None:
        """A pack's trials go on in halves; one that is alone again and again has failed."""
        pack.losses = 0
        running = pack.running
        if len(running) > 1:
            self.halved(pack, running)
            return
        pack.deaths += 1
        if pack.deaths >= MAX_DEATHS:
            self.end_trials(pack, TrialState.FAILED)
            pack.end()
            pack.job.unpublishable |= pack.purpose == Purpose.PUBLISH
            self.follow(pack.job)

    def halved(self, pack: ModelPack, running: list[ModelTrial]) -> None:
        other = self.new_pack(pack.job)
        other.files = list(pack.files)
        with self.database.reading() as session:
            packs = {row["number"]: row["pack_id"] for row in self.trial_rows(session, pack.job)}
        moved = [trial for trial in running if packs[trial.number] == other.id]
        pack.lanes, pack.parted = len(running) - len(moved), True

        assert abs(pack.lanes - len(moved)) <= 1
        assert other.lanes == len(moved)
        for trial in moved:
            trial.pack = other

    def trial_rows(self, session: Any, job: ModelJob) -> list[Any]:
        table = SQLModel.metadata.tables["trial"]
        return list(session.execute(select(table).where(table.c.job_id == job.id)).mappings())

    def reaped(self) -> int:
        """What becomes of all packs whose lease has run out; how many there are."""
        lost = [pack for pack in self.packs.values() if pack.expired]
        for pack in lost:
            pack.epoch += 1
            pack.losses += 1
            pack.let_go()
            if pack.losses >= MAX_LOSSES:
                files = set(pack.files)
                self.suspected(pack)
                self.left |= files if pack.done else set()  # nobody is told: the janitor finds them
            elif pack.losses > 1:
                self.made_to_wait(pack)
        return len(lost)

    def made_to_wait(self, pack: ModelPack) -> None:
        """A pack that was lost again waits, here until a step says that it has."""
        with self.database.reading() as session:
            row = session.get_one(Pack, pack.id)
            wait = (row.not_before or 0.0) - leases_module.clock(session)

        assert FIRST_WAIT - 5 < wait <= LONGEST_WAIT
        self.set_row(Pack, pack.id, not_before=4e9)
        pack.waits = True

    # --- workers

    def next_waiting(self) -> ModelPack | None:
        """The pack that is to be claimed before a new one is made."""
        free = [p for p in self.packs.values() if not (p.done or p.leased or p.waits) and p.job.state != PAUSED]
        return min(free, key=lambda pack: pack.id, default=None)

    def next_job(self) -> ModelJob | None:
        """The job of which a trial is to be begun, where no pack waits: that with the fewest packs, then the first."""
        able = [job for job in self.jobs if job.state in (QUEUED, RUNNING) and not job.spent]
        return min(able, key=lambda job: len(self.open_packs(job)), default=None)

    def taken(self, owner: Leases, claim: Claim, pack: ModelPack) -> Held:
        pack.epoch += 1
        pack.owner, pack.leased = owner.owner, True
        if pack.job.state == QUEUED:
            pack.job.state, pack.job.begun = RUNNING, True
        held = Held(claim, pack)
        self.claims.append(held)

        assert (claim.pack_id, claim.job_id, claim.purpose) == (pack.id, pack.job.id, pack.purpose)
        assert claim.epoch == pack.epoch
        if claim.purpose == Purpose.PUBLISH:
            held.winner = self.publishing.winner(claim)
        return held

    def claimed(self, owner: Leases) -> Held | None:
        """Let a worker look for a pack: it finds what the model says."""
        claim = owner.claim()
        self.reaped()
        if (waiting := self.next_waiting()) is not None:
            assert claim is not None
            return self.taken(owner, claim, waiting)
        if (job := self.next_job()) is not None:
            assert claim is not None
            assert claim.job_id == job.id
            pack = self.new_pack(job)
            pack.epoch = 0
            job.trials.append(ModelTrial(len(job.trials), pack))
            return self.taken(owner, claim, pack)
        assert claim is None
        return None

    @rule(owner=OWNER)
    def claim(self, owner: int) -> None:
        """A worker looks for work."""
        self.claimed(self.owners[owner])

    @precondition(lambda self: self.held(Purpose.TRAIN))
    @rule(which=ANY, fits=st.booleans())
    def reserve(self, which: int, fits: bool) -> None:
        """A trainer asks for one more trial."""
        pack = pick(self.held(Purpose.TRAIN), which)
        job = pack.pack.job
        record = self.ledger.reserve(pack.claim, lambda number: fits and number == len(job.trials))
        if job.state != RUNNING or job.spent or not fits:
            assert record is None
            self.unchanged()
            return
        assert record == TrialRecord(len(job.trials), TrialState.RUNNING)
        job.trials.append(ModelTrial(record.number, pack.pack))

    @precondition(lambda self: self.held(Purpose.TRAIN))
    @rule(which=ANY, lanes=st.integers(1, 3))
    def settle_pack(self, which: int, lanes: int) -> None:
        """A trainer says how many lanes train best; the job's first pack decides."""
        held = pick(self.held(Purpose.TRAIN), which)
        pack, job = held.pack, held.pack.job
        job.lanes = job.lanes or lanes
        pack.lanes = min(pack.lanes, job.lanes) if pack.parted else job.lanes

        assert self.ledger.settle_pack(held.claim, "key", lanes) == pack.lanes
        assert self.ledger.lanes(job.id) == job.lanes

    @precondition(lambda self: any(held.pack.job.trials for held in self.held(Purpose.TRAIN)))
    @rule(which=ANY, trial=ANY, flops=SIZE, weights=SIZE)
    def start(self, which: int, trial: int, flops: int | None, weights: int | None) -> None:
        """A trainer draws the parameters of a trial."""
        held = pick(self.held(Purpose.TRAIN), which)
        one = pick(held.pack.job.trials, trial)
        self.record(held, [self.started(one, flops, weights)], one)

    @precondition(lambda self: any(held.pack.job.trials for held in self.held(Purpose.TRAIN)))
    @rule(which=ANY, trial=ANY, value=st.one_of(st.none(), VALUE))
    def measure(self, which: int, trial: int, value: float | None) -> None:
        """A trial reaches its next rung, or one that is no longer this pack's seems to."""
        held = pick(self.held(Purpose.TRAIN), which)
        one = pick(held.pack.job.trials, trial)
        epoch = len(one.rungs) + 1
        if self.record(held, [Measured(one.number, measurement(epoch, value, value), {"epoch": epoch})], one):
            one.rungs[10 * epoch] = value

    def started(self, trial: ModelTrial, flops: int | None = None, weights: int | None = None) -> Started:
        return Started(trial.number, PARAMS, {"learning_rate": 0.01}, {}, 1, 2, 0, flops, weights)

    def record(self, held: Held, events: list[Event], trial: ModelTrial) -> bool:
        """Record something of one trial; whether it is heard: of one that has ended or has gone it is not."""
        assert self.ledger.record(held.claim, events, {}) == []
        if trial not in held.pack.running:
            self.unchanged()
            return False
        for event in events:
            if isinstance(event, Started):
                self.has_started(trial, event)
        return True

    def has_started(self, trial: ModelTrial, event: Started) -> None:
        trial.started = trial.suggested = True
        trial.sizes = (inf if event.flops is None else event.flops, inf if event.weights is None else event.weights)

    @precondition(lambda self: any(held.pack.job.trials for held in self.held(Purpose.TRAIN)))
    @rule(which=ANY, trial=ANY, state=END, value=VALUE, saves=st.booleans(), sizes=st.tuples(SIZE, SIZE))
    def finish(
        self, which: int, trial: int, state: TrialState, value: float, saves: bool, sizes: tuple[int | None, int | None]
    ) -> None:
        """A trial ends, with its checkpoint or without."""
        held = pick(self.held(Purpose.TRAIN), which)
        one = pick(held.pack.job.trials, trial)
        if one in held.pack.running:
            known, worth = one.started, self.ledger.worth_keeping(held.claim, one.number, value)
            self.finished(held, [one], state, value, saves, sizes)
            if saves and state.judged and known:
                assert worth == (one.file is not None)
            return
        path = self.file("late")
        late = Finished(one.number, state, "late", None, value, None)

        assert self.ledger.record(held.claim, [late], {one.number: (path, FILE)}) == [path]
        self.unneeded.add(path)
        self.unchanged()

    def finished(
        self,
        held: Held,
        trials: list[ModelTrial],
        state: TrialState,
        value: float,
        saves: bool,
        sizes: tuple[int | None, int | None] = (1, 1),
    ) -> None:
        """Let running trials of a claimed pack end in one write."""
        judged = value if state.judged else None
        saved, events = {}, []
        for trial in trials:
            if not trial.started:
                events.append(self.started(trial, *sizes))
                self.has_started(trial, events[-1])
            best = measurement(1, value, value)
            events.append(Finished(trial.number, state, "by the test", best, judged, None))
            if saves and state.judged:
                saved[trial.number] = (self.file(f"trial-{trial.number}"), FILE)
        self.unneeded.update(self.ledger.record(held.claim, events, saved))
        for trial in trials:
            trial.state, trial.value = state, judged
            trial.file = saved[trial.number][0] if trial.number in saved else None
        self.kept_only(held.pack.job)

    def kept_only(self, job: ModelJob) -> None:
        """Of a job's checkpoints those of its best trial, of its versions and of trials that none beats are kept."""
        with_file = [trial for trial in job.trials if trial.file]
        job.best = max(with_file, key=lambda t: rank(job, t.value or 0.0, t.number), default=None)
        published = {trial for trial, _ in job.versions.values()}
        for trial in with_file:
            beaten = any(beats(job, other, trial) for other in with_file)
            if beaten and trial is not job.best and trial.number not in published:
                trial.file = None

    @precondition(lambda self: self.held(Purpose.TRAIN))
    @rule(which=ANY)
    def keep(self, which: int) -> None:
        """A trainer writes a checkpoint of its pack; the one before stays, those before that go."""
        pack = (held := pick(self.held(Purpose.TRAIN), which)).pack
        path = self.file(f"pack-{pack.id}")
        gone = set(self.ledger.keep(held.claim, 10, (path, FILE)))
        before, pack.files, pack.losses, pack.waits = pack.files, [path, *pack.files[:1]], 0, False
        needed = {name for other in self.packs.values() for name in other.files}

        assert gone == set(before) - needed
        self.unneeded |= gone

    @precondition(lambda self: any(held.pack.files for held in self.held(Purpose.TRAIN)))
    @rule(which=ANY)
    def discard_checkpoint(self, which: int) -> None:
        """A trainer finds the newest checkpoint of its pack damaged; the file stays, to be looked at."""
        held = pick([held for held in self.held(Purpose.TRAIN) if held.pack.files], which)
        opened = self.ledger.pack(held.claim)

        assert [artifact.path for artifact in opened.checkpoints] == held.pack.files
        self.ledger.discard(held.claim, opened.checkpoints[0], "damaged")
        self.left.add(held.pack.files.pop(0))

    @precondition(lambda self: self.held(Purpose.TRAIN))
    @rule(which=ANY)
    def open_pack(self, which: int) -> None:
        """A trainer reads its pack: all of its trials, with what was measured of them."""
        pack = (held := pick(self.held(Purpose.TRAIN), which)).pack
        opened = self.ledger.pack(held.claim)
        trials = [trial for trial in pack.job.trials if trial.pack is pack]

        assert [(t.number, t.state, t.value) for t in opened.record.trials] == [
            (t.number, t.state, t.value) for t in trials
        ]
        assert [{step: m.val_accuracy for step, m in t.rungs.items()} for t in opened.record.trials] == [
            t.rungs for t in trials
        ]
        assert [t.start_step is not None for t in opened.record.trials] == [t.started for t in trials]
        assert (opened.record.lanes, opened.record.parted) == (pack.lanes, pack.parted)
        assert [artifact.path for artifact in opened.checkpoints] == pack.files

    @precondition(lambda self: self.held(Purpose.TRAIN))
    @rule(which=ANY, first=st.sets(st.integers(0, 3), min_size=1), second=st.sets(st.integers(0, 3)))
    def part(self, which: int, first: set[int], second: set[int]) -> None:
        """A trainer gives trials packs of their own; those that have ended meanwhile stay."""
        pack = (held := pick(self.held(Purpose.TRAIN), which)).pack
        groups = [sorted(group) for group in (first, second - first) if group]
        running = {trial.number: trial for trial in pack.running}
        self.ledger.part(held.claim, groups)
        expected = [numbers for group in groups if (numbers := [n for n in group if n in running])]
        others = self.new_packs(pack.job)

        assert [other.lanes for other in others] == [len(numbers) for numbers in expected]
        for other, numbers in zip(others, expected, strict=True):
            other.files = list(pack.files)
            for number in numbers:
                running[number].pack = other

    @precondition(lambda self: self.held())
    @rule(which=ANY)
    def renew(self, which: int) -> None:
        """A worker keeps its pack, also one whose lease has run out unnoticed."""
        held = pick(self.held(), which)

        assert self.leases(held).renew(held.claim)
        held.pack.expired = False

    @precondition(lambda self: self.held())
    @rule(which=ANY, waits=st.booleans())
    def release(self, which: int, waits: bool) -> None:
        """A worker gives its pack back."""
        held = pick(self.held(), which)
        self.leases(held).release(held.claim, FOREVER if waits else 0.0)
        held.pack.let_go()
        held.pack.waits = waits
        held.given_back = True

    @precondition(lambda self: self.held())
    @rule(which=ANY)
    def hold(self, which: int) -> None:
        """A worker finds no room for files: it gives its pack back, and its job waits for somebody."""
        held = pick(self.held(), which)
        self.leases(held).hold(held.claim, "full")
        held.pack.let_go()
        held.given_back = True
        if held.pack.job.state in (RUNNING, STOPPING):
            held.pack.job.state = PAUSED

    @precondition(lambda self: self.held())
    @rule(which=ANY)
    def died(self, which: int) -> None:
        """A trainer dies on its pack."""
        held = pick(self.held(), which)
        self.unneeded.update(self.leases(held).died(held.claim, "signal SIGKILL"))
        held.pack.let_go()
        held.given_back = True
        self.suspected(held.pack)

    @precondition(lambda self: self.held())
    @rule(which=ANY)
    def expire(self, which: int) -> None:
        """A worker is not heard of until its lease has run out."""
        pack = pick(self.held(), which).pack
        self.set_row(Pack, pack.id, lease_expires_at=1.0)
        pack.expired = True

    @rule(owner=OWNER)
    def reap(self, owner: int) -> None:
        """Somebody takes back what was lost, once."""
        count = self.owners[owner].reap()

        assert count == self.reaped()
        self.again_nothing(self.owners[owner].reap)

    @precondition(lambda self: self.held(Purpose.TRAIN))
    @rule(which=ANY)
    def close(self, which: int) -> None:
        """A worker is done with a pack; what still runs in it was stopped before it could say so."""
        self.closed(pick(self.held(Purpose.TRAIN), which))

    def closed(self, held: Held) -> None:
        self.unneeded.update(self.leases(held).close(held.claim))
        self.end_trials(held.pack, TrialState.CANCELLED)
        held.pack.end()
        self.follow(held.pack.job)

    @precondition(lambda self: self.held(Purpose.PUBLISH))
    @rule(which=ANY)
    def publish(self, which: int) -> None:
        """A winner becomes a version."""
        self.published(pick(self.held(Purpose.PUBLISH), which))

    def published(self, held: Held) -> None:
        job, winner = held.pack.job, held.winner
        assert winner is not None
        self.publishing.open_test(held.claim)
        self.publishing.publish(held.claim, winner, self.publication())
        job.versions[job.run] = (winner.trial.number, winner.trial.value or 0.0)
        held.pack.end()
        self.follow(job)

    def publication(self) -> Published:
        return Published(self.file("onnx"), FILE, [1, 8, 8], [str(n) for n in range(10)], 650, 0.2, 0.88)

    @precondition(lambda self: self.held(Purpose.PUBLISH))
    @rule(which=ANY)
    def discard_winner(self, which: int) -> None:
        """A winner's checkpoint is damaged: it is trained again, and the second time the job has failed."""
        held = pick(self.held(Purpose.PUBLISH), which)
        job, winner = held.pack.job, held.winner
        assert winner is not None
        self.publishing.discard(held.claim, winner, "damaged")
        held.pack.end()
        trial = job.trials[winner.trial.number]
        if trial.discarded:
            job.unpublishable = True
            self.follow(job)
            return
        job.state = RUNNING
        self.left.add(trial.file or "")
        trial.again(self.new_pack(job))
        trial.discarded, trial.file = True, None
        self.kept_only(job)

    @precondition(lambda self: self.claims)
    @rule(which=ANY)
    def ask_for_orders(self, which: int) -> None:
        """A worker asks what it is to do about a pack that it holds or thinks it holds."""
        held = pick(self.claims, which)
        orders = self.owners[0].orders(held.claim)
        pack, job = held.pack, held.pack.job
        if not held.good:
            assert orders.stop == Stop.CANCELLED
        elif job.state == PAUSED:
            assert orders.stop == Stop.RELEASED
        elif pack.purpose == Purpose.TRAIN and job.out_of_time:
            assert orders.stop == Stop.SECONDS
        else:
            cut = {t.number for t in job.trials if t.pack is pack and t.state == TrialState.CANCELLED}

            assert (orders.stop, set(orders.cut)) == (None, cut)

    @precondition(lambda self: any(not held.good for held in self.claims))
    @rule(which=ANY, number=st.integers(0, 3))
    def write_late(self, which: int, number: int) -> None:
        """A worker that has lost its pack goes on writing: whatever it tries, nothing comes of it."""
        held = pick([held for held in self.claims if not held.good], which)
        for name, write in self.writes(held, number).items():
            try:
                write()
            except LeaseLost:
                continue
            raise AssertionError(f"{name} was not refused")
        leases, claim = self.owners[0], held.claim

        assert leases.renew(claim) is False
        assert (leases.release(claim, 5.0), leases.hold(claim, "late"), leases.died(claim, "late")) == (None, None, [])
        self.unchanged()

    def writes(self, held: Held, number: int) -> dict[str, Callable[[], Any]]:
        """All that a claim is needed for."""
        ledger, claim, saved = self.ledger, held.claim, ("late", FILE)
        rung = Measured(number, measurement(9, 0.99), {})
        end = Finished(number, TrialState.COMPLETED, "late", measurement(9, 0.99), 0.99, None)
        writes: dict[str, Callable[[], Any]] = {
            "pack": lambda: ledger.pack(claim),
            "reserve": lambda: ledger.reserve(claim, lambda _: True),
            "settle_pack": lambda: ledger.settle_pack(claim, "late", 9),
            "part": lambda: ledger.part(claim, [[number]]),
            "start": lambda: ledger.record(claim, [Started(number, PARAMS, {}, {}, 1, 2, 0)], {}),
            "measure": lambda: ledger.record(claim, [rung], {}),
            "finish": lambda: ledger.record(claim, [end], {number: saved}),
            "nothing": lambda: ledger.record(claim, [], {}),
            "keep": lambda: ledger.keep(claim, 99, saved),
            "discard": lambda: ledger.discard(claim, Artifact(id=-1), "late"),
            "close": lambda: self.owners[0].close(claim),
            "open_test": lambda: self.publishing.open_test(claim),
        }
        if (winner := held.winner) is not None:
            late = Published("late", FILE, [1, 8, 8], ["0"], 1, 0.1, 0.99)
            writes["publish"] = lambda: self.publishing.publish(claim, winner, late)
            writes["discard winner"] = lambda: self.publishing.discard(claim, winner, "late")
        return writes

    # --- time

    @precondition(lambda self: any(pack.leased and pack.job.seconds for pack in self.packs.values()))
    @rule(which=ANY)
    def use_up_seconds(self, which: int) -> None:
        """A job with a pack at work comes to the end of its seconds."""
        self.used_up(pick([pack.job for pack in self.packs.values() if pack.leased and pack.job.seconds], which))

    def used_up(self, job: ModelJob) -> None:
        if not job.out_of_time:
            job.used = job.seconds or 0.0
            self.set_row(Job, job.id, active_seconds=job.used)

    @precondition(lambda self: any(pack.waits for pack in self.packs.values()))
    @rule()
    def wait(self) -> None:
        """Packs have waited long enough."""
        for pack in self.packs.values():
            if pack.waits:
                self.set_row(Pack, pack.id, not_before=1.0)
                pack.waits = False

    # --- people

    @precondition(lambda self: len(self.jobs) < MOST_JOBS)
    @rule(
        trials=st.integers(1, 3),
        seconds=st.sampled_from([None, 1000.0]),
        maximize=st.booleans(),
        train=st.sampled_from([False, False, False, True]),
        keyed=st.booleans(),
    )
    def accept(self, trials: int, seconds: float | None, maximize: bool, train: bool, keyed: bool) -> None:
        """Somebody posts a job."""
        objective = "val_accuracy" if maximize else "val_loss"
        spec: TrainSpec | TuneSpec = tune_spec(
            search_space=SPACE, objective=objective, budget={"trials": trials, "seconds": seconds}
        )
        if train:
            body = {"model": "perceptron", "dataset": "digits", "objective": objective, "budget": {"seconds": seconds}}
            spec = TrainSpec.model_validate(body)
        once = Once(f"key {len(self.sent)}", "accept") if keyed else None
        job = ModelJob(self.ledger.accept(spec, once).id, train, maximize, None if train else trials, seconds)
        # Jobs that come within the same millisecond are in no order.
        self.set_row(Job, job.id, created_at=float(len(self.jobs)))
        self.jobs.append(job)
        if once is not None:
            self.sent.append(Sent(once, job, spec))

    @precondition(lambda self: self.sent)
    @rule(which=ANY, same=st.booleans())
    def send_again(self, which: int, same: bool) -> None:
        """Somebody has not heard an answer and sends a request again, or another one with its key."""
        sent = pick(self.sent, which)
        once = sent.once if same else Once(sent.once.key, "another")

        def send() -> tuple[str, int | None]:
            if sent.spec is not None:
                return self.ledger.accept(sent.spec, once).id, None
            return sent.job.id, self.controls.enqueue(sent.job.id, {}, once).number

        if not same:
            self.refused(KeyReused, send)
            return
        assert send() == (sent.job.id, sent.trial)
        self.unchanged()

    @precondition(lambda self: self.jobs)
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        """Somebody cancels a job; one that has ended stays as it is."""
        job = pick(self.jobs, which)
        answer, unneeded = self.controls.cancel(job.id)
        self.unneeded.update(unneeded)
        if job.state in FINAL:
            assert (answer.state, unneeded) == (job.state, [])
            self.unchanged()
            return
        for pack in self.open_packs(job):
            self.end_trials(pack, TrialState.CANCELLED)
            pack.end()
        job.state = CANCELLED

        assert answer.state == CANCELLED
        self.again_nothing(lambda: self.controls.cancel(job.id))

    @precondition(lambda self: self.jobs)
    @rule(which=ANY)
    def pause(self, which: int) -> None:
        """Somebody pauses a job."""
        job = pick(self.jobs, which)
        if job.state not in (QUEUED, RUNNING, PAUSED):
            self.refused(Conflict, lambda: self.controls.pause(job.id))
            return
        answer = self.controls.pause(job.id)
        if job.state == PAUSED:
            self.unchanged()
        job.state = PAUSED

        assert answer.state == PAUSED
        self.again_nothing(lambda: self.controls.pause(job.id))

    @precondition(lambda self: self.jobs)
    @rule(which=ANY)
    def resume(self, which: int) -> None:
        """Somebody lets a job go on."""
        self.resumed(pick(self.jobs, which))

    def resumed(self, job: ModelJob) -> None:
        if job.state in FINAL:
            with pytest.raises(Conflict):
                self.controls.resume(job.id)
            return
        answer = self.controls.resume(job.id)
        if job.state != PAUSED:
            assert answer.state == job.state
            return
        publishes = any(pack.purpose == Purpose.PUBLISH for pack in self.open_packs(job))
        job.state = STOPPING if publishes else RUNNING if job.begun else QUEUED
        self.follow(job)

        assert answer.state == job.state
        if job.state not in FINAL:
            self.again_nothing(lambda: self.controls.resume(job.id))

    @precondition(lambda self: self.jobs)
    @rule(
        which=ANY,
        budget=st.fixed_dictionaries(
            {},
            optional={
                "trials": st.sampled_from([1, 2, 3, 4, 5, None]),
                "seconds": st.sampled_from([None, 1000.0, 2000.0]),
            },
        ),
    )
    def extend(self, which: int, budget: dict[str, Any]) -> None:
        """Somebody changes a budget; the same change once more changes nothing."""
        job = pick(self.jobs, which)
        for _ in range(2):
            self.rows = read(self.database)
            self.extended(job, budget)

    def extended(self, job: ModelJob, budget: dict[str, Any]) -> None:
        limits = {"trials": job.trials_asked, "seconds": job.seconds}
        wanted = limits | budget
        if job.state in (STOPPING, FAILED, CANCELLED):
            self.refused(Conflict, lambda: self.controls.extend(job.id, budget))
        elif "trials" in budget if job.train else set(wanted.values()) == {None}:
            self.refused(SpecError, lambda: self.controls.extend(job.id, budget))
        elif wanted == limits:
            self.controls.extend(job.id, budget)
            self.unchanged()
        elif not job.train and (wanted["trials"] or MAX_TRIALS) < len(job.trials):
            self.refused(Conflict, lambda: self.controls.extend(job.id, budget))
        else:
            self.controls.extend(job.id, budget)
            job.trials_asked, job.seconds = wanted["trials"], wanted["seconds"]
            if job.state == COMPLETED and not job.spent:
                self.reopened(job)
            self.follow(job)

    @precondition(lambda self: self.jobs)
    @rule(which=ANY, keyed=st.booleans())
    def enqueue(self, which: int, keyed: bool) -> None:
        """Somebody begins a trial of their own."""
        job = pick(self.jobs, which)
        once = Once(f"key {len(self.sent)}", "enqueue") if keyed else None
        if job.state not in (QUEUED, RUNNING, PAUSED) or job.spent or job.train:
            self.refused(Conflict, lambda: self.controls.enqueue(job.id, {}, once))
            return
        trial = self.controls.enqueue(job.id, {}, once)
        job.trials.append(ModelTrial(len(job.trials), self.new_pack(job)))

        assert trial.number == job.trials[-1].number
        if once is not None:
            self.sent.append(Sent(once, job, None, trial.number))

    @precondition(lambda self: self.jobs)
    @rule(which=ANY, number=st.integers(0, 4))
    def retry(self, which: int, number: int) -> None:
        """Somebody lets a failed trial run again."""
        job = pick(self.jobs, which)

        def ask() -> Any:
            return self.controls.retry(job.id, number)

        if number >= len(job.trials):
            self.refused(NotFound, ask)
            return
        trial = job.trials[number]
        if trial.state == TrialState.RUNNING:
            assert ask().number == number
            self.unchanged()
        elif trial.state != TrialState.FAILED or job.state in (STOPPING, CANCELLED):
            self.refused(Conflict, ask)
        else:
            ask()
            trial.again(self.new_pack(job))
            if job.state in FINAL:
                self.reopened(job)
            self.again_nothing(ask)

    @precondition(lambda self: self.jobs)
    @rule(which=ANY, number=st.integers(0, 4))
    def cancel_trial(self, which: int, number: int) -> None:
        """Somebody cancels a trial: where nobody works on its pack and it was the last, the job is settled."""
        job = pick(self.jobs, which)
        if number >= len(job.trials):
            self.refused(NotFound, lambda: self.controls.cancel_trial(job.id, number))
            return
        trial = job.trials[number]
        answer, unneeded = self.controls.cancel_trial(job.id, number)
        self.unneeded.update(unneeded)
        if trial.state != TrialState.RUNNING:
            assert (answer.state, unneeded) == (trial.state, [])
            self.unchanged()
            return
        trial.state = TrialState.CANCELLED
        if not trial.pack.leased and not trial.pack.running:
            trial.pack.end()
            self.follow(job)
        self.again_nothing(lambda: self.controls.cancel_trial(job.id, number))

    # --- what takes many steps

    @precondition(lambda self: self.jobs)
    @rule(owner=OWNER, state=END, value=VALUE, sizes=st.tuples(SIZE, SIZE))
    def work(self, owner: int, state: TrialState, value: float, sizes: tuple[int | None, int | None]) -> None:
        """A worker claims a pack and sees it through."""
        if (held := self.claimed(self.owners[owner])) is not None:
            self.seen_through(held, state, value, sizes)

    def seen_through(
        self,
        held: Held,
        state: TrialState = TrialState.COMPLETED,
        value: float = 0.5,
        sizes: tuple[int | None, int | None] = (1, 1),
    ) -> None:
        if held.claim.purpose == Purpose.PUBLISH:
            self.published(held)
            return
        self.finished(held, held.pack.running, state, value, True, sizes)
        self.closed(held)

    @precondition(lambda self: self.jobs)
    @rule()
    def work_off(self) -> None:
        """However things stand, one worker that stays brings every job to its end, once nobody keeps one paused."""
        for held in self.held():
            self.set_row(Pack, held.pack.id, lease_expires_at=1.0)
            held.pack.expired = True
        for job in self.jobs:
            self.resumed(job)
        self.owners[0].reap()
        self.reaped()
        self.wait()
        for _ in range(100):
            if (held := self.claimed(self.owners[0])) is None:
                break
            if held.pack.job.seconds:
                self.used_up(held.pack.job)
            self.seen_through(held)

        assert {job.state for job in self.jobs} <= FINAL

    @precondition(lambda self: self.jobs)
    @rule(which=ANY)
    def search(self, which: int) -> None:
        """A search asks what has changed since it last asked, and then knows all that there is."""
        job = pick(self.jobs, which)
        changed, job.seen = self.ledger.changes(job.id, job.seen)
        job.records |= {record.number: record for record in changed}
        known = [job.records[number] for number in sorted(job.records)]

        assert [(r.number, r.state, r.value, r.suggestion is not None) for r in known] == [
            (t.number, t.state, t.value, t.suggested) for t in job.trials
        ]
        assert [r.values for r in known] == [
            {step: value for step, value in t.rungs.items() if value is not None} for t in job.trials
        ]

    # --- what holds after every step

    @invariant()
    def all_is_well(self) -> None:
        """Every row is as the model and the design have it."""
        self.earlier, self.rows = self.rows, read(self.database)
        for job in self.jobs:
            row = next(row for row in self.rows["job"] if row["id"] == job.id)
            rows = self.rows_of(job)
            self.check_job(job, row)
            self.check_trials(job, rows)
            self.check_packs(job, rows)
            self.check_state(job, row, rows)
            self.check_history(job, row, rows)
            self.check_best(job, row, rows)
            self.check_time(job, row, rows)
            self.check_cancelled(job)
        self.check_claims()
        self.check_files()
        self.check_versions()

    def rows_of(self, job: ModelJob) -> Rows:
        """What belongs to one job."""
        return {
            name: [row for row in rows if row["job_id"] == job.id]
            for name, rows in self.rows.items()
            if rows and "job_id" in rows[0]
        }

    def check_job(self, job: ModelJob, row: dict[str, Any]) -> None:
        """The job's own row is as the model has it; its budget is exact."""
        best = None if job.best is None else job.best.number
        assert (row["state"], row["run"], row["lanes"]) == (job.state, job.run, job.lanes)
        assert (row["reserved"], row["failures"]) == (len(job.trials), job.failures)
        assert (row["trial_limit"], row["seconds_limit"]) == (job.limit, job.seconds)
        assert row["reserved"] <= row["trial_limit"]
        assert row["best_trial"] == best

    def check_trials(self, job: ModelJob, rows: Rows) -> None:
        """Numbers have no gap, and every trial and rung is as the model has it, recorded once."""
        trials = sorted(rows.get("trial", []), key=lambda row: row["number"])
        rungs: dict[int, dict[int, float | None]] = {row["id"]: {} for row in trials}
        epochs: dict[int, list[int]] = {row["id"]: [] for row in trials}
        for rung in sorted(rows.get("measurement", []), key=lambda row: row["step"]):
            rungs[rung["trial_id"]][rung["step"]] = rung["val_accuracy"]
            epochs[rung["trial_id"]].append(rung["lease_epoch"])

        assert [row["number"] for row in trials] == list(range(len(job.trials)))
        assert [(row["state"], row["pack_id"], row["value"]) for row in trials] == [
            (trial.state, trial.pack.id, trial.value) for trial in job.trials
        ]
        assert [rungs[row["id"]] for row in trials] == [trial.rungs for trial in job.trials]
        assert [(row["finished_at"] is None) for row in trials] == [t.state == TrialState.RUNNING for t in job.trials]
        assert all(found == sorted(found) for found in epochs.values())

    def check_packs(self, job: ModelJob, rows: Rows) -> None:
        """Packs are as the model has them; a running trial is in a pack that is open."""
        packs = [pack for pack in self.packs.values() if pack.job is job]
        found = {row["id"]: row for row in rows.get("pack", [])}

        assert {pack.id: (pack.purpose, pack.done, pack.epoch, pack.owner, pack.lanes) for pack in packs} == {
            id_: (row["purpose"], row["done"], row["lease_epoch"], row["lease_owner"], row["lanes"])
            for id_, row in found.items()
        }
        assert [(pack.leased, pack.losses, pack.deaths) for pack in packs] == [
            (row["lease_expires_at"] is not None, row["losses"], row["deaths"])
            for row in (found[pack.id] for pack in packs)
        ]
        assert not any(trial.pack.done for trial in job.trials if trial.state == TrialState.RUNNING)

    def check_state(self, job: ModelJob, row: dict[str, Any], rows: Rows) -> None:
        """A job's state says truly what is at work, and none is stuck."""
        at_work = self.open_packs(job)
        publishing = [pack for pack in at_work if pack.purpose == Purpose.PUBLISH]
        if job.state in FINAL:
            assert at_work == []
            assert all(trial["state"] != TrialState.RUNNING for trial in rows.get("trial", []))
        if job.state in (QUEUED, RUNNING):
            assert at_work or not job.spent, "nothing is at work and nothing can be begun"
            assert not publishing
        if job.state == STOPPING:
            assert at_work, "nothing is at work and nothing will be"
        if job.state == COMPLETED:
            assert job.best is not None
            assert (job.best.number, job.best.value) in job.versions.values(), "the best trial was not published"
        if job.state == FAILED:
            assert job.best is None or job.unpublishable
        assert len(publishing) <= 1
        self.check_words(job, row)

    def check_words(self, job: ModelJob, row: dict[str, Any]) -> None:
        """What a job says of itself goes with its state."""
        assert (row["finished_at"] is not None) == (job.state in FINAL)
        assert (row["started_at"] is not None) == job.begun
        assert (row["error"] is not None) == (job.state == FAILED)
        if job.state != PAUSED:  # one that was publishing knows why
            assert (row["stop_reason"] is not None) == (job.state in (*FINAL, STOPPING))
        if job.state == COMPLETED and row["stop_reason"] == "trials":
            # Its budget may have been raised since, where its seconds were over.
            assert len(job.trials) >= job.limit or job.out_of_time, "trials of its budget were never begun"

    def check_history(self, job: ModelJob, row: dict[str, Any], rows: Rows) -> None:
        """The counter only rises, what is written gets a number above all before, and every move is allowed."""
        before = next((old["sequence"] for old in self.earlier["job"] if old["id"] == job.id), 0)
        known = {event["sequence"] for event in self.earlier["event"] if event["job_id"] == job.id}
        events = sorted(rows.get("event", []), key=lambda event: event["sequence"])
        numbers = [event["sequence"] for event in events]
        all_numbers = numbers + [rung["sequence"] for rung in rows.get("measurement", [])]

        assert row["sequence"] >= before
        assert known <= set(numbers)
        assert all(before < number for number in set(numbers) - known)
        assert len(set(all_numbers)) == len(all_numbers)
        assert max(all_numbers + [trial["sequence"] for trial in rows.get("trial", [])]) <= row["sequence"]
        own = [JobState(event["state"]) for event in events if event["trial"] is None]
        assert (own[0], own[-1]) == (QUEUED, job.state)
        # The same state again is a note; there is none to make of a job that has ended.
        assert all(two in MOVES[one] or (one == two and one not in FINAL) for one, two in pairwise(own)), own
        for trial in job.trials:
            self.check_trial_history(trial, [e["state"] for e in events if e["trial"] == trial.number])

    def check_trial_history(self, trial: ModelTrial, states: list[str]) -> None:
        """A trial runs, ends, and runs again only after that."""
        assert (states[0], states[-1]) == (TrialState.RUNNING, trial.state)
        assert all((one == TrialState.RUNNING) != (two == TrialState.RUNNING) for one, two in pairwise(states))

    def check_best(self, job: ModelJob, row: dict[str, Any], rows: Rows) -> None:
        """The best trial is the best of those with a checkpoint; of the other checkpoints none is beaten."""
        files = {a["trial"]: a["path"] for a in rows.get("artifact", []) if a["kind"] == "checkpoint"}
        values = {t["number"]: t["value"] for t in rows.get("trial", []) if t["number"] in files}
        best = max(values, key=lambda number: rank(job, values[number], number), default=None)

        assert (row["best_trial"], row["best_value"]) == (best, values.get(best))
        assert files == {trial.number: trial.file for trial in job.trials if trial.file}
        assert len(files) == sum(artifact["kind"] == "checkpoint" for artifact in rows.get("artifact", []))
        keeping = [trial for trial in job.trials if trial.file]
        spared = {best, *(trial for trial, _ in job.versions.values())}
        for trial in keeping:
            assert trial.number in spared or not any(beats(job, other, trial) for other in keeping)

    def check_time(self, job: ModelJob, row: dict[str, Any], rows: Rows) -> None:
        """A job's seconds run while it has a pack leased, and never back."""
        before = next((old["active_seconds"] for old in self.earlier["job"] if old["id"] == job.id), 0.0)
        leased = [pack for pack in self.open_packs(job) if pack.leased and not pack.expired]

        assert row["active_seconds"] >= before
        assert row["active_seconds"] < job.used + 600
        if leased:
            assert row["active_since"] is not None
        if not any(pack.leased for pack in self.open_packs(job)):
            assert row["active_since"] is None

    def check_cancelled(self, job: ModelJob) -> None:
        """Of a cancelled job nothing is written any more."""
        if job.state == CANCELLED:
            rows = {**self.rows_of(job), "job": [row for row in self.rows["job"] if row["id"] == job.id]}
            rows.pop("idempotencykey", None)
            assert {k: v for k, v in self.ended_as.setdefault(job.id, rows).items() if v} == {
                k: v for k, v in rows.items() if v
            }

    def check_claims(self) -> None:
        """At most one claim of a pack is good."""
        good = [held.pack.id for held in self.claims if held.good]

        assert len(set(good)) == len(good)

    def check_files(self) -> None:
        """Every file is named by a row or was handed out to be removed, and never both."""
        named = {artifact["path"] for artifact in self.rows["artifact"]}
        packs: dict[int, list[str]] = {}
        for artifact in self.rows["artifact"]:
            if artifact["kind"] == "pack":
                packs.setdefault(artifact["pack_id"], []).insert(0, artifact["path"])

        assert not named & self.unneeded
        assert self.written == named | self.unneeded | (self.left & self.written)
        assert packs == {pack.id: pack.files for pack in self.packs.values() if pack.files}

    def check_versions(self) -> None:
        """A run of a job has at most one version; the champion is the best of those that can be compared with it."""
        versions = sorted(self.rows["modelversion"], key=lambda row: row["version"])
        expected = {(job.id, run): found for job in self.jobs for run, found in job.versions.items()}

        assert {(row["job_id"], row["run"]): (row["trial"], row["value"]) for row in versions} == expected
        assert [row["version"] for row in versions] == list(range(1, len(versions) + 1))
        assert len(self.rows["champion"]) == bool(versions)
        for champion in self.rows["champion"]:
            like = [row for row in versions if row["objective"] == versions[0]["objective"]]
            sign = 1 if versions[0]["objective"] == "val_accuracy" else -1
            best = max(like, key=lambda row: (sign * row["value"], -row["version"]))
            assert champion["version_id"] == best["id"]


@pytest.mark.parametrize("examples", [QUICK, pytest.param(LONG, marks=pytest.mark.long)])
def test_no_order_of_events_breaks_a_promise(
    database: Database, examples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs, packs, trials, rungs, files, versions and the history are as promised after every step."""
    monkeypatch.setattr(settlement_module, "HOPELESS", HOPELESS)
    monkeypatch.setattr(leases_module, "HOPELESS", HOPELESS)
    monkeypatch.setattr(leases_module, "MAX_LOSSES", MAX_LOSSES)
    run_state_machine_as_test(
        lambda: LedgerMachine(database),
        settings=settings(
            max_examples=examples,
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            phases=[
                Phase.explicit,
                Phase.reuse,
                Phase.generate,
                Phase.shrink,
            ],  # not explain, which traces every line: slow
            suppress_health_check=list(HealthCheck),
        ),
    )
