"""A pause, a drain or a death at any step of a search changes nothing that the search finds."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlmodel import col
from support.trained_tools import Training
from support.worker_tools import Work

from ml.records import Stop
from worker.database.tables import Artifact, Job, JobState, Measurement, ModelVersion, Pack, Trial
from worker.ledger.leases import Claim

pytestmark = [
    pytest.mark.long,
    pytest.mark.usefixtures("environment"),
    pytest.mark.filterwarnings("ignore:.*experimental:optuna.exceptions.ExperimentalWarning"),
]

# Trials end at different steps, and six of nine begin in the place of another.
SEARCH: dict[str, Any] = {
    "model": "perceptron",
    "images": 60,
    "search_space": {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True}, "batch_size": 16},
    "sampler": {"name": "tpe", "n_startup_trials": 3},
    "pruner": {"name": "median", "n_startup_trials": 1},
    "budget": {"trials": 9, "epochs": 2},
    "lanes": 3,
}


class Killed(BaseException):
    """The death of a worker and its trainer: none of their code handles it."""


@dataclass
class Moment:
    """The moment at which a search is interrupted: the occasion with a number, counted from its beginning."""

    number: int
    strike: Callable[[], None]
    passed: int = 0

    def __call__(self) -> None:
        """Count an occasion."""
        self.passed += 1
        if self.passed == self.number:
            self.strike()


class Asked:
    """Orders that are asked for at each step and before each trial begins; to ask is an occasion."""

    cancelled: frozenset[int] = frozenset()

    def __init__(self) -> None:
        self.order: Stop | None = None
        self.moment: Callable[[], None] = lambda: None

    @property
    def stop(self) -> Stop | None:
        """The order, once the moment has passed."""
        self.moment()
        return self.order

    @stop.setter
    def stop(self, order: Stop | None) -> None:
        self.order = order


class Worker:
    """A worker in this process, which tests interrupt."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.orders = Asked()
        self.trains = False  # true while it works on a pack
        self._start()

    def _start(self) -> None:
        """Start a trainer that knows nothing of what happened before."""
        self.trainer = Training(self.work).trainer
        self.trainer.bench.orders = self.orders  # type: ignore[assignment]

    def to_the_end(self, job: Job) -> None:
        """Work until the job has ended; resume it if it is paused, and take back packs that were lost."""
        while not JobState(self.work.job(job).state).final:
            claim = self.work.leases.claim()
            if claim is None:
                self.work.controls.resume(job.id)
            else:
                self._train(claim)
            self.orders.order = None

    def _train(self, claim: Claim) -> None:
        self.trains = True
        try:
            answer = self.trainer.work(claim)
        except Killed:
            self._lose_lease()
            self._start()
            return
        finally:
            self.trains = False
        if "done" in answer:
            self.work.leases.close(claim)
        elif "released" in answer:
            self.work.leases.release(claim)

    def _lose_lease(self) -> None:
        with self.work.database.writing() as session:
            session.execute(update(Pack).values(lease_expires_at=1.0))
        self.work.leases.reap()
        with self.work.database.writing() as session:
            session.execute(update(Pack).values(not_before=None))

    # Ways to interrupt a job.

    def drain(self, job: Job) -> None:
        """Ask the trainer to give its pack back."""
        self.orders.order = Stop.RELEASED

    def pause(self, job: Job) -> None:
        """Pause the job; the trainer is told three occasions later, as by a worker that looks once a second."""
        self.work.controls.pause(job.id)
        self.orders.moment = Moment(3, partial(self.drain, job))

    def kill(self, job: Job) -> None:
        """Kill worker and trainer."""
        raise Killed


def found(work: Work, job: Job) -> list[tuple[Any, ...]]:
    """Return all that a job found, except times."""
    with work.database.reading() as session:
        of_job = select(Trial).where(col(Trial.job_id) == job.id).order_by(col(Trial.number))
        trials = session.scalars(of_job).all()
        rows = [(t.number, t.state, t.params, t.value, t.start_step, t.lane) for t in trials]
        names = {trial.id: trial.number for trial in trials}
        measured = session.scalars(select(Measurement).where(col(Measurement.job_id) == job.id)).all()
        rungs = sorted((names[m.trial_id], m.step, m.images_seen, m.train_loss, m.val_loss) for m in measured)
        version = session.scalars(select(ModelVersion).where(col(ModelVersion.job_id) == job.id)).one()
        return [*rows, *rungs, (version.trial, session.get_one(Artifact, version.checkpoint_id).sha256)]


def undisturbed(work: Work) -> list[tuple[Any, ...]]:
    """Return what the search finds if nothing interrupts it."""
    job = work.accept(**SEARCH)
    Worker(work).to_the_end(job)
    return found(work, job)


@pytest.mark.parametrize("how", ["drain", "pause", "kill"])
def test_an_interruption_at_any_step_changes_nothing(work: Work, how: str) -> None:
    """Trials, measurements and the published checkpoint are those of the search that nothing interrupts."""
    expected, differing = undisturbed(work), []
    for number in count(1):
        job, worker = work.accept(**SEARCH), Worker(work)
        moment = worker.orders.moment = Moment(number, partial(getattr(worker, how), job))
        worker.to_the_end(job)
        if moment.passed < number:
            break
        differing += [number] if found(work, job) != expected else []

    assert number > 30
    assert len({row[4] for row in expected[:9]}) > 2  # trials began at several steps
    assert differing == []


def test_a_death_at_any_write_changes_nothing(work: Work) -> None:
    """A trainer that dies just before it commits has written nothing, and the next one does the same again."""
    expected, differing = undisturbed(work), []
    for number in count(1):
        job, worker = work.accept(**SEARCH), Worker(work)
        moment = Moment(number, partial(worker.kill, job))
        with writes(work, lambda: moment() if worker.trains else None):  # noqa: B023 - it ends with this turn
            worker.to_the_end(job)
        if moment.passed < number:
            break
        differing += [number] if found(work, job) != expected else []

    assert number > 10
    assert differing == []


@contextmanager
def writes(work: Work, before: Callable[[], None]) -> Iterator[None]:
    """Call `before` before each commit of a writing transaction."""
    engine = work.database._writer
    event.listen(engine, "commit", listener := lambda _: before())
    yield
    event.remove(engine, "commit", listener)
