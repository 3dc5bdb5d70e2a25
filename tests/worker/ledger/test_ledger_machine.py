"""The ledger, compared with a model of it, under any order of requests, work and deaths of workers.

Hypothesis draws the steps. Each step is applied to the real ledger and to a few dataclasses. After each step all rows
are compared with the dataclasses and with the promises of the design. One rule is intricate: the next state of a job
whose last pack has ended. The model does not repeat that rule. It copies the ledger's decision, and checks it.
"""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledger_machine.checks import Checks
from ledger_machine.model import (
    END,
    FINAL,
    HOPELESS,
    MAX_LOSSES,
    OWNER,
    SIZES,
    VALUE,
    Held,
    Sizes,
)
from ledger_machine.people import People
from ledger_machine.workers import Workers

from ml.records import TrialState
from ml.specs import MAX_TRIALS
from worker.database.engine import Database
from worker.database.tables import PackPurpose
from worker.ledger import leases as leases_module
from worker.ledger import settlement as settlement_module

# Both databases run the same transactions; the tests of races show the differences of their locks.
EXAMPLES = {"sqlite": 40, "postgresql": 15}
STEPS = 50  # per example


class LedgerMachine(Workers, People, Checks):
    """A ledger with three workers and clients, and the model of it."""

    @rule(owner=OWNER, fills=st.booleans(), state=END, value=VALUE, sizes=SIZES)
    def work(self, owner: int, fills: bool, state: TrialState, value: float, sizes: Sizes) -> None:
        """A worker claims a pack and finishes it; a training pack may first take as many trials as there are."""
        held = self.claimed(self.owners[owner])
        if held is not None and held.claim.purpose == PackPurpose.TRAIN:
            while fills and held.pack.job.limit < MAX_TRIALS and self.reserved(held):
                pass
            self.seen_through(held, state, value, sizes)

    def seen_through(
        self,
        held: Held,
        state: TrialState = TrialState.COMPLETED,
        value: float = 0.5,
        sizes: Sizes = (1, 1),
    ) -> None:
        if held.claim.purpose == PackPurpose.PUBLISH:
            self.published(held)
            return
        self.finished(held, held.pack.running, state, value, True, sizes)
        self.closed(held)

    @precondition(lambda self: self.steps >= 12)  # earlier, too little would have happened
    @rule()
    def work_off(self) -> None:
        """From any state, one remaining worker brings every job to its end after paused jobs are resumed."""
        self.steps = 0
        for held in self.held():
            self.expired(held.pack)
        for job in self.jobs:
            self.resumed(job)
        self.owners[0].reap()
        self.reaped()
        self.waited()
        for _ in range(100):
            if (held := self.claimed(self.owners[0])) is None:
                break
            if held.pack.job.seconds:
                self.used_up(held.pack.job)
            self.seen_through(held)

        assert {job.state for job in self.jobs} <= FINAL


@pytest.mark.long
def test_no_order_of_events_breaks_a_promise(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs, packs, trials, rungs, files, versions and the history are as promised after every step."""
    monkeypatch.setattr(settlement_module, "HOPELESS", HOPELESS)
    monkeypatch.setattr(leases_module, "HOPELESS", HOPELESS)
    monkeypatch.setattr(leases_module, "MAX_LOSSES", MAX_LOSSES)
    run_state_machine_as_test(
        lambda: LedgerMachine(database),
        settings=settings(
            max_examples=EXAMPLES[database._writer.dialect.name],
            stateful_step_count=STEPS,
            deadline=None,
            print_blob=True,
            phases=[
                Phase.explicit,
                Phase.reuse,
                Phase.generate,
                Phase.shrink,
            ],  # without explain, which is slow because it traces every line
            suppress_health_check=list(HealthCheck),
        ),
    )
