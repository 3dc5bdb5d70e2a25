"""Two trainers on one job, each with its own book and search, exchange results through the ledger."""

from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.worker_tools import Work, measurement

from ml.datasets import datasets
from ml.parameters.params import Params
from ml.records import STEPS_PER_EPOCH, Event, Finished, Measured, Started, Stop, TrialRecord, TrialState
from ml.samplers import pruners
from ml.training.lane import TrainingData
from ml.tuning.search import Search
from ml.tuning.tune import tune_pack
from worker.artifacts.folder import FolderStore
from worker.artifacts.store import drop_files
from worker.database.tables import Job
from worker.errors import LeaseLost
from worker.ledger.leases import Leases
from worker.training.ledger_book import JobSearch, LedgerBook

# Optuna warns of the argument `group` for each new TPE sampler; ml ignores the warning, but pytest shows it again.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

EPOCHS = 9
TRIALS = 20
FIELDS: dict[str, Any] = {
    "search_space": {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True}, "batch_size": 32},
    "sampler": {"name": "tpe", "n_startup_trials": 10},
    "budget": {"trials": TRIALS, "epochs": EPOCHS},
}
STARTS = {"median": {"n_startup_trials": 2}}


@dataclass
class Quiet:
    """Orders of a supervisor that never stops its trainer."""

    stop: Stop | None = None
    cancelled: frozenset[int] = frozenset()


@dataclass
class Trainer:
    """The book and search of a trainer that does not train."""

    book: LedgerBook

    @classmethod
    def of(cls, work: Work, leases: Leases, job: Job, folder: Path) -> "Trainer":
        """Return a trainer that has claimed a pack of the job."""
        claim = leases.claim()
        assert claim is not None
        store = FolderStore(folder)
        work.database.on_unneeded = partial(drop_files, store)
        return cls(LedgerBook(work.ledger, claim, JobSearch(Search(work.spec(job))), Quiet(), store, inf))

    @property
    def search(self) -> Search:
        """The trainer's search."""
        return self.book.warm.search

    def catch_up(self) -> list[TrialRecord]:
        """Apply changed records to the search, and return them."""
        records = list(self.book.changes())
        for record in records:
            self.search.apply(record)
        return records

    def first(self) -> TrialRecord | None:
        """Return the trial that the pack was claimed with, at the first call."""
        opened = self.book.open()
        return opened.trials[0] if opened else None

    def begin(self) -> TrialRecord:
        """Draw a trial and record its start."""
        reserved = self.first() or self.book.reserve(lambda number: True)
        assert reserved is not None
        self.catch_up()
        _, drawn = self.search.ask(reserved.number)
        self.book.record([Started(drawn.number, {}, drawn.suggestion or {}, drawn.attrs, 1, 2, 0)])
        return drawn

    def reach(self, trial: TrialRecord, epoch: int) -> bool:
        """Measure a trial and decide about pruning as `ml.tuning` does; return whether it was pruned."""
        self.catch_up()
        value = curve(trial)[epoch - 1]
        pruned = bool(self.search.report({trial.number: (epoch * STEPS_PER_EPOCH, value)}))
        measured = measurement(epoch, value)
        events: list[Event] = [Measured(trial.number, measured, self.search.attrs(trial.number))]
        if pruned or epoch == EPOCHS:
            state = TrialState.PRUNED if pruned else TrialState.COMPLETED
            events.append(Finished(trial.number, state, "", measured, value, None))
        self.book.record(events)
        return pruned


def curve(trial: TrialRecord) -> list[float]:
    """Return a made-up validation accuracy for each epoch: rising, best near a learning rate of 1e-3."""
    level = np.exp(-abs(np.log10((trial.suggestion or {})["learning_rate"]) + 3))
    noise = np.random.default_rng(trial.number).normal(0, 0.02, EPOCHS)
    return [float(v) for v in level * (1 - 0.5 ** np.arange(1, EPOCHS + 1)) + noise]


def play(trainers: list[Trainer]) -> list[Any]:
    """Run trials two at a time, one in each trainer, and return all draws and decisions.

    One trainer may be given twice. The trials take turns, one epoch at a time.
    """
    happened: list[Any] = []
    for _ in range(TRIALS // 2):
        running = [(trainer, trainer.begin()) for trainer in trainers]
        happened += [(trial.number, trial.suggestion, trial.attrs) for _, trial in running]
        for epoch in range(1, EPOCHS + 1):
            for trainer, trial in list(running):
                pruned = trainer.reach(trial, epoch)
                happened.append((trial.number, epoch, pruned))
                if pruned:
                    running.remove((trainer, trial))
    return happened


@pytest.fixture
def data() -> TrainingData:
    """Return the small data set, split for training."""
    return TrainingData.of(datasets["digits"].load(), None, "random", 0)


@pytest.mark.long
@pytest.mark.parametrize("pruner", [name for name in pruners if name != "none"])
def test_two_trainers_draw_and_prune_as_one_would(pruner: str, work: Work, tmp_path: Path) -> None:
    """Measurements that two trainers record in turn lead to the trials and ends of one trainer."""
    fields = FIELDS | {"pruner": {"name": pruner} | STARTS.get(pruner, {})}
    job = work.accept(**fields)
    one = Trainer.of(work, work.leases, job, tmp_path)
    alone = play([one, one])
    work.cancel(job)
    job = work.accept(**fields)
    together = play([Trainer.of(work, leases, job, tmp_path) for leases in (work.leases, work.other)])
    pruned = [row for row in alone if row[2] is True]

    assert together == alone
    assert 0 < len(pruned) < TRIALS


def test_a_trainer_learns_of_the_other_trainers_running_trials(work: Work, tmp_path: Path) -> None:
    """It gets their draws and measurements so far, each once."""
    job = work.accept(**FIELDS, pruner={"name": "none"})
    one, two = (Trainer.of(work, leases, job, tmp_path) for leases in (work.leases, work.other))
    own, other = one.begin(), two.begin()
    two.reach(other, 1)
    heard = {record.number: record for record in one.catch_up()}
    again = one.catch_up()

    assert (own.number, other.number) == (0, 1)
    assert (heard[1].state, heard[1].suggestion) == (TrialState.RUNNING, other.suggestion)
    assert heard[1].values == {STEPS_PER_EPOCH: pytest.approx(curve(other)[0])}
    assert one.search.trials()[1].params == other.suggestion
    assert again == []


def test_a_trainer_draws_with_knowledge_of_the_other_trainers_running_trials(work: Work, tmp_path: Path) -> None:
    """It draws the same as a search that runs both trials."""
    job = work.accept(**FIELDS | {"sampler": {"name": "tpe", "n_startup_trials": 1}}, pruner={"name": "none"})
    one, two = (Trainer.of(work, leases, job, tmp_path) for leases in (work.leases, work.other))
    trials = [one.begin(), two.begin()]
    for epoch in range(1, EPOCHS + 1):
        one.reach(trials[0], epoch)
    two.reach(trials[1], 1)
    both, ignorant = Search(work.spec(job)), Search(work.spec(job))
    records, _ = work.ledger.changes(job.id, 0)
    for record in records:
        both.apply(record)
    ignorant.apply(records[[record.number for record in records].index(0)])
    drawn = one.begin()

    assert drawn.suggestion == both.ask(2)[1].suggestion
    assert drawn.suggestion != ignorant.ask(2)[1].suggestion


# --- real training, through the ledger


def test_a_pack_trained_through_the_ledger_is_recorded_as_a_pack(
    work: Work, tmp_path: Path, data: TrainingData
) -> None:
    """One call trains the claimed trial and all trials that it can reserve, and fixes key, lanes and positions."""
    fields = FIELDS | {"budget": {"trials": 5, "epochs": 2}, "pruner": {"name": "none"}, "lanes": 2}
    job = work.accept(**fields)
    trainer = Trainer.of(work, work.leases, job, tmp_path)
    trained = tune_pack(work.spec(job), data, trainer.book, trainer.search)
    (pack,) = work.packs()

    assert trained
    assert {trial.number: trial.state for trial in work.trials()} == dict.fromkeys(range(5), TrialState.COMPLETED)
    assert {trial.pack_id for trial in work.trials()} == {pack.id}
    assert [trial.lane for trial in work.trials()] == [0, 1, 0, 1, 0]
    assert (pack.lanes, pack.key) == (2, "batch 32, Flatten-Linear")
    best = f"{work.job(job).best_trial}.{pack.id}.1.safetensors"
    assert [file.name for file in tmp_path.rglob("*.safetensors")] == [best]


def test_a_pack_after_a_death_trains_only_its_own_trials(work: Work, tmp_path: Path, data: TrainingData) -> None:
    """Half of a divided pack resumes its trial with the same hyper-parameters and begins no others."""
    fields = FIELDS | {"budget": {"trials": 50, "epochs": 1}, "pruner": {"name": "none"}, "lanes": 2}
    job = work.accept(**fields)
    claim = work.pack(2)
    work.ledger.fix_lanes(claim, "batch 32, Flatten-Linear", 2)
    work.leases.died(claim, "signal SIGKILL")
    trainer = Trainer.of(work, work.leases, job, tmp_path)
    tune_pack(work.spec(job), data, trainer.book, trainer.search)
    first, second = work.trials()

    assert (first.state, second.state) == (TrialState.COMPLETED, TrialState.RUNNING)
    assert first.suggestion == {"learning_rate": 0.01}
    assert Params.model_validate(first.params).learning_rate == 0.01


def test_a_pack_whose_only_trial_was_cancelled_before_its_draw_is_done(
    work: Work, tmp_path: Path, data: TrainingData
) -> None:
    """A trainer that opens it finds nothing to train."""
    job = work.accept(**FIELDS)
    claim = work.leases.claim()
    assert claim is not None
    work.controls.cancel_trial(job.id, 0)
    work.leases.release(claim)
    trainer = Trainer.of(work, work.leases, job, tmp_path)

    assert tune_pack(work.spec(job), data, trainer.book, trainer.search)
    assert [trial.state for trial in work.trials()] == [TrialState.CANCELLED]


def test_a_trainer_that_lost_its_pack_leaves_no_file(work: Work, tmp_path: Path, data: TrainingData) -> None:
    """Files that it saved for the refused rows are removed."""
    job = work.accept(**FIELDS | {"budget": {"trials": 2, "epochs": 1}, "pruner": {"name": "none"}, "lanes": 2})
    trainer = Trainer.of(work, work.leases, job, tmp_path)
    keeps, seen = work.ledger.worth_keeping, []

    def lose(*arguments: Any) -> bool:
        work.leases.release(trainer.book.claim)
        seen.append(work.other.claim())
        return keeps(*arguments)

    trainer.book.ledger.worth_keeping = lose  # type: ignore[method-assign]

    with pytest.raises(LeaseLost):
        tune_pack(work.spec(job), data, trainer.book, trainer.search)
    assert seen
    assert list(tmp_path.rglob("*.safetensors")) == []
