"""The base class of all steps: it has the real ledger and the model."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
)
from ledger_machine.model import (
    COMPLETED,
    FAILED,
    FINAL,
    FOREVER,
    MAX_LOSSES,
    PAUSED,
    QUEUED,
    STOPPING,
    Held,
    ModelJob,
    ModelPack,
    ModelTrial,
    Rows,
    Sent,
    differences,
    empty,
    read,
)
from sqlalchemy import select, update
from sqlmodel import SQLModel, col

from ml.records import TrialState
from worker.database.engine import Database
from worker.database.tables import Job, JobState, Pack, PackPurpose
from worker.errors import Conflict
from worker.ledger import leases as leases_module
from worker.ledger.leases import FIRST_WAIT, LONGEST_WAIT, MAX_DEATHS, Leases
from worker.ledger.ledger import Ledger
from worker.ledger.requests import Controls
from worker.publication.rows import PublicationRows


class Machine(RuleBasedStateMachine):
    """A ledger with three workers and clients, and the model of it."""

    def __init__(self, database: Database) -> None:
        super().__init__()
        empty(database)
        self.database = database
        self.ledger, self.controls, self.publishing = Ledger(database), Controls(database), PublicationRows(database)
        self.owners = [Leases(database, name, FOREVER) for name in ("one", "two", "three")]
        self.jobs: list[ModelJob] = []
        self.packs: dict[int, ModelPack] = {}
        self.claims: list[Held] = []
        self.sent: list[Sent] = []
        # Files: all that were written, those that were removed, and those that stay until the janitor removes them.
        self.written: set[str] = set()
        self.unneeded: set[str] = set()
        database.on_unneeded = self.unneeded.update
        self.left: set[str] = set()
        self.ended_as: dict[str, Rows] = {}  # the rows of cancelled jobs at the time of the cancellation
        self.steps = 0  # since the last `work_off`
        self.rows = read(database)  # after the last step
        self.earlier = self.rows  # after the step before the last

    def held(self, purpose: PackPurpose | None = None) -> list[Held]:
        """Return the good claims that a worker still holds, if `purpose` is given only those of that purpose."""
        return [h for h in self.claims if h.good and not h.given_back and purpose in (None, h.claim.purpose)]

    def open_packs(self, job: ModelJob) -> list[ModelPack]:
        return [pack for pack in self.packs.values() if pack.job is job and not pack.done]

    def leases(self, held: Held) -> Leases:
        """Return the leases of the worker that made a claim."""
        return next(one for one in self.owners if one.owner == held.pack.owner)

    def unchanged(self) -> None:
        """Assert that this step has changed nothing yet."""
        assert differences(self.rows, read(self.database)) == {}

    def refused(self, error: type[Exception] | tuple[type[Exception], ...], ask: Callable[[], Any]) -> None:
        """Assert that a request is refused and changes nothing."""
        with pytest.raises(error):
            ask()
        self.unchanged()

    def undecided(self, job: ModelJob) -> bool:
        """Return whether a job was paused while it published; the model does not decide if such a job accepts work."""
        return job.state == PAUSED and any(pack.purpose == PackPurpose.PUBLISH for pack in self.open_packs(job))

    def taken_up(self, job: ModelJob, ask: Callable[[], Any]) -> Any:
        """Return the answer, or None if the job refuses and the model allows that."""
        try:
            return ask()
        except Conflict:
            assert self.undecided(job)
            self.unchanged()
            return None

    def again_nothing(self, ask: Callable[[], Any]) -> None:
        """Assert that repeating the request changes nothing."""
        before = read(self.database)
        ask()

        assert read(self.database) == before

    def set_row(self, table: type[SQLModel], id_: Any, **values: Any) -> None:
        """Set columns of a row that only time would change; steps stand in for the database's clock."""
        with self.database.writing() as session:
            session.execute(update(table).where(col(table.id) == id_).values(**values))  # type: ignore[attr-defined]

    def file(self, name: str) -> str:
        """Return the key of a new file."""
        path = f"{name}.{len(self.written)}"
        self.written.add(path)
        return path

    def new_packs(self, job: ModelJob) -> list[ModelPack]:
        """Add the new packs of a job to the model and return them."""
        with self.database.reading() as session:
            of_job = (col(Pack.job_id) == job.id, col(Pack.id).not_in(self.packs))
            rows = session.scalars(select(Pack).where(*of_job).order_by(col(Pack.id))).all()
        new = [ModelPack(p.id or 0, job, PackPurpose(p.purpose), p.lease_epoch, p.lanes, p.parted) for p in rows]
        self.packs |= {pack.id: pack for pack in new}
        return new

    def new_pack(self, job: ModelJob) -> ModelPack:
        (pack,) = self.new_packs(job)
        return pack

    def follow(self, job: ModelJob) -> None:
        """Copy the ledger's decision about a job's next state into the model.

        A job moves on exactly if it has no open pack and begins no more trials.
        """
        with self.database.reading() as session:
            state = JobState(session.get_one(Job, job.id).state)
        idle = job.state not in (*FINAL, PAUSED) and not self.open_packs(job)
        if not idle or not (job.spent or job.state == STOPPING):
            assert state == job.state, (state, job)
            return
        assert state in (STOPPING, COMPLETED, FAILED)
        job.state = state
        assert [pack.purpose for pack in self.new_packs(job)] == [PackPurpose.PUBLISH] * (state == STOPPING)

    def end_trials(self, pack: ModelPack, state: TrialState) -> None:
        for trial in pack.running:
            trial.state = state

    def reopened(self, job: ModelJob) -> None:
        job.state, job.run, job.unpublishable = QUEUED, job.run + 1, False

    def suspected(self, pack: ModelPack) -> None:
        """Halve a pack's trials; fail a trial that was alone at two deaths."""
        pack.lost_leases = 0
        running = pack.running
        if len(running) > 1:
            self.halved(pack, running)
            return
        pack.deaths += 1
        if pack.deaths >= MAX_DEATHS:
            self.end_trials(pack, TrialState.FAILED)
            pack.end()
            pack.job.unpublishable |= pack.purpose == PackPurpose.PUBLISH

    def halved(self, pack: ModelPack, running: list[ModelTrial]) -> None:
        self.new_packs(pack.job)
        with self.database.reading() as session:
            packs = {row["number"]: row["pack_id"] for row in self.trial_rows(session, pack.job)}
        moved = [trial for trial in running if packs[trial.number] != pack.id]
        (id_,) = {packs[trial.number] for trial in moved}
        other = self.packs[id_]
        other.files = list(pack.files)
        pack.lanes, pack.parted = len(running) - len(moved), True

        assert abs(pack.lanes - len(moved)) <= 1
        assert other.lanes == len(moved)
        for trial in moved:
            trial.pack = other

    def trial_rows(self, session: Any, job: ModelJob) -> list[Any]:
        table = SQLModel.metadata.tables["trial"]
        return list(session.execute(select(table).where(table.c.job_id == job.id)).mappings())

    def reaped(self) -> int:
        """Take back, in the model, all packs whose lease has run out; return their number."""
        lost = [pack for pack in self.packs.values() if pack.expired]
        for pack in lost:
            pack.epoch += 1
            pack.lost_leases += 1
            pack.let_go()
            if pack.lost_leases >= MAX_LOSSES:
                self.suspected(pack)
            elif pack.lost_leases > 1:
                self.made_to_wait(pack)
        for pack in lost:
            if pack.done:
                self.follow(pack.job)
        return len(lost)

    def made_to_wait(self, pack: ModelPack) -> None:
        """Check that a pack that was lost again waits, and let it wait until a step ends the wait."""
        with self.database.reading() as session:
            row = session.get_one(Pack, pack.id)
            wait = (row.not_before or 0.0) - leases_module.clock(session)

        assert FIRST_WAIT - 5 < wait <= LONGEST_WAIT
        self.set_row(Pack, pack.id, not_before=4e9)
        pack.waits = True
