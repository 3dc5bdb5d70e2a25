"""Run-offs with the real ledger, packs and trainer."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from sqlmodel import col
from support.trained_tools import Orders, Training
from support.worker_tools import Work

from ml.datasets import data_split, datasets, limited
from ml.records import Stop
from ml.seeds import SeedPurpose, derive
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack
from ml.training.retraining import predicted
from worker.database.tables import Artifact, Job, ModelVersion, Opening, PackPurpose, Rerun, RunOff, Trial
from worker.errors import Conflict
from worker.publication.rows import PublicationRows
from worker.run_off.work import decide
from worker.training.ledger_book import LedgerBook

pytestmark = pytest.mark.long  # all tests together take 15 s

SPACE = {
    "batch_size": {"type": "categorical", "choices": [32, 64]},
    "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2, "log": True},
    "hidden_size": {"type": "int", "low": 8, "high": 32},
}
SPEC = {
    "model": "shallow",
    "search_space": SPACE,
    "sampler": {"name": "random"},
    "pruner": {"name": "none"},
    "lanes": 2,
    "budget": {"trials": 4, "epochs": 2},
    "run_off": {"top": 3, "seeds": 2},
}

only_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def reruns(work: Work) -> list[Rerun]:
    """Return all trainings of run-offs, in order of trial and seed."""
    with work.database.reading() as session:
        return list(session.scalars(select(Rerun).order_by(col(Rerun.trial), col(Rerun.seed))))


def artifacts(work: Work) -> list[Artifact]:
    """Return all recorded files."""
    with work.database.reading() as session:
        return list(session.scalars(select(Artifact)))


def labels(work: Work, folder: Path, rerun: Rerun) -> np.ndarray:
    """Return a training's predictions for the validation images of its split."""
    with work.database.reading() as session:
        file = session.get_one(Artifact, rerun.predictions_id)
    return np.frombuffer((folder / file.path).read_bytes(), np.uint8)


def decided(work: Work) -> tuple[RunOff, ModelVersion, list[Opening]]:
    """Return the decision, the published version, and the openings of the test set."""
    published = select(ModelVersion).where(col(ModelVersion.test_accuracy).is_not(None))  # the winner's
    with work.database.reading() as session:
        run_off, version = session.scalars(select(RunOff)).one(), session.scalars(published).one()
        return run_off, version, list(session.scalars(select(Opening)))


def searched(work: Work) -> tuple[Job, Training]:
    """Return a job whose search has ended and whose run-off has not begun, and a worker."""
    job, training = work.accept(**SPEC), Training(work)
    training.run(until=PackPurpose.RUN_OFF)
    return job, training


def test_a_run_off_decides_which_trial_is_published(work: Work, environment: Path) -> None:
    """Three trials on two splits are six trainings outside the budget; only the winner opens the test set."""
    job, training = searched(work)
    before = (work.job(job).state, len(reruns(work)), len(training.openings()))
    training.run()
    run_off, version, openings = decided(work)
    ended = work.job(job)

    assert before == ("stopping", 6, 0)
    assert (ended.state, ended.reserved, ended.best_trial is not None) == ("completed", 4, True)
    assert {one.state for one in reruns(work)} == {"completed"}
    assert version.trial == run_off.winner == run_off.verdict["winner"]
    assert [opening.version_id for opening in openings] == [version.id]
    assert len({one.split_seed for one in reruns(work)}) == 2


@only_sqlite
def test_a_training_ends_at_the_epoch_that_the_search_chose(work: Work, environment: Path) -> None:
    """An epoch that is chosen by the training's own validation images would look too good on them."""
    job, training = work.accept(**SPEC | {"budget": {"trials": 3, "epochs": 6}}), Training(work)
    training.run(until=PackPurpose.RUN_OFF)
    with work.database.writing() as session:
        for trial in session.scalars(select(Trial).where(col(Trial.job_id) == job.id)):
            trial.best_epoch = float(2 + trial.number)
    training.run()

    assert {(one.trial, one.best_epoch, one.epochs_run) for one in reruns(work)} == {
        (n, n + 2, n + 2) for n in range(3)
    }


@only_sqlite
def test_the_compared_accuracies_follow_from_the_kept_predictions(work: Work, environment: Path) -> None:
    """The verdict's accuracies equal those of the predictions and the data set's labels."""
    _, training = searched(work)
    training.run()
    verdict = decided(work)[0].verdict
    arrays = datasets["digits"].load()
    for one in verdict["contenders"]:
        for rerun in (r for r in reruns(work) if r.trial == one["trial"]):
            truth = arrays.labels[data_split(len(arrays), None, "random", rerun.split_seed).validation]
            accuracy = float((labels(work, environment, rerun) == truth).mean())
            assert one["accuracies"][rerun.seed] == pytest.approx(accuracy)
            assert rerun.val_accuracy == pytest.approx(accuracy)


@only_sqlite
def test_a_run_off_of_a_job_with_a_limit_on_images_counts_those(work: Work, environment: Path) -> None:
    """The corrected t-test weighs training images against validation images: 320 and 80 of 400."""
    work.accept(**SPEC, images=400)
    Training(work).run()
    verdict = decided(work)[0].verdict

    assert verdict["train_images"] == limited(1294, 323, 400)[0] == 320


@only_sqlite
def test_each_training_can_be_repeated_alone(work: Work, environment: Path) -> None:
    """A single lane with the recorded split, seeds and stream predicts the same labels."""
    job, training = searched(work)
    training.run()
    spec, (last, packs) = work.spec(job), (reruns(work)[-1], {pack.id: pack for pack in work.packs()})
    trial = work.trials()[last.trial]
    data = TrainingData.load(datasets["digits"], "random", last.split_seed)
    params, stream_seed = spec.params(trial.params or {}), packs[last.pack_id].stream_seed or 0
    alone = LanePack.of(spec, data, params, stream_seed)
    until = round(10 * (trial.best_epoch or 0))
    lane = Lane(
        trial.number, spec, params, derive(last.split_seed, SeedPurpose.INIT, trial.number), stream_seed, until=until
    )
    alone.join(lane)
    for _ in alone.run(lambda: False):
        pass

    assert (predicted(lane, data) == labels(work, environment, last)).mean() > 0.995  # sums may round differently


@only_sqlite
@pytest.mark.parametrize(("steps", "stop"), [(7, Stop.RELEASED), (60, Stop.CANCELLED)])
def test_an_interrupted_pack_ends_the_same(steps: int, stop: Stop, work: Work, environment: Path) -> None:
    """Released with a checkpoint or lost without one, a run-off predicts the same as an undisturbed one."""
    job, training = searched(work)
    training.orders.stop_after(steps, stop)
    claim = work.leases.claim()
    assert claim is not None
    training.trainer.work(claim)
    kept = [artifact.kind for artifact in artifacts(work) if artifact.kind == "pack"]
    work.leases.release(claim)
    training.orders.stop = None
    training.run()
    interrupted = [labels(work, environment, one) for one in reruns(work)]
    other = work.accept(**SPEC)
    training.run()
    undisturbed = [labels(work, environment, one) for one in reruns(work) if one.job_id == other.id]

    assert len(kept) == (stop == Stop.RELEASED)
    assert work.job(job).state == work.job(other).state == "completed"
    assert len(undisturbed) == 6
    assert all((a == b).all() for a, b in zip(interrupted, undisturbed, strict=True))


@only_sqlite
@pytest.mark.parametrize("cost", [0.001, 0.05])
def test_checkpoints_take_at_most_two_percent_of_a_run_offs_time(
    cost: float, work: Work, environment: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test's clock takes 10 ms per step; without a minimum time, each pack makes a first checkpoint at once."""
    job, training = work.accept(**SPEC | {"budget": {"trials": 4, "epochs": 10}}), Training(work)
    training.run(until=PackPurpose.RUN_OFF)
    clock = _Clocked(training.orders)
    monkeypatch.setattr("ml.training.checkpointing.monotonic", lambda: clock.now)
    monkeypatch.setattr(LedgerBook, "keep", lambda book, checkpoint: clock.keep(cost))
    training.bench.orders, training.bench.checkpoint_seconds = clock, 0.0
    packs = sum(pack.purpose == PackPurpose.RUN_OFF for pack in work.packs())
    training.run()

    assert work.job(job).state == "completed"
    assert clock.keeps > packs
    assert (clock.keeps - packs) * cost <= 0.02 * clock.now


@dataclass
class _Clocked:
    """Orders with their own clock: each read, one before every step, takes 10 ms."""

    orders: Orders
    now: float = 0.0
    keeps: int = 0
    cancelled: frozenset[int] = frozenset()

    @property
    def stop(self) -> Stop | None:
        self.now += 0.01
        return self.orders.stop

    def keep(self, cost: float) -> None:
        self.now += cost
        self.keeps += 1


@only_sqlite
@pytest.mark.parametrize("lost", [1, 6])
def test_trainings_that_kill_their_trainer_are_left_out(lost: int, work: Work, environment: Path) -> None:
    """The run-off is decided without their trials; if none is left, the best of the search is published."""
    job, training = searched(work)
    for _ in range(2 * lost):
        if training.waits(PackPurpose.RUN_OFF):
            claim = work.leases.claim()
            assert claim is not None
            work.leases.died(claim, "killed")
    training.run()
    run_off, version, _ = decided(work)

    assert work.job(job).state == "completed"
    assert run_off.verdict["lost"]
    assert version.trial == run_off.winner
    if lost == 6:
        assert version.trial == work.job(job).best_trial


def test_a_run_off_can_be_cancelled(work: Work, environment: Path) -> None:
    """It ends at once. Until then, the job's budget cannot be raised."""
    job, _ = searched(work)
    with pytest.raises(Conflict, match="in its run-off, so its budget cannot be changed"):
        work.controls.extend(job.id, {"trials": 9})
    work.cancel(job)

    assert work.leases.claim() is None
    assert work.job(job).state == "cancelled"


@only_sqlite
def test_a_run_off_can_be_paused(work: Work, environment: Path) -> None:
    """It waits, and goes on after it is resumed."""
    job, training = searched(work)
    work.controls.pause(job.id)
    nothing = work.leases.claim()
    with pytest.raises(Conflict, match="paused"):
        work.controls.extend(job.id, {"trials": 9})
    resumed = work.controls.resume(job.id)
    training.run()

    assert nothing is None
    assert resumed.state == "stopping"
    assert work.job(job).state == "completed"


@only_sqlite
def test_a_run_off_that_ends_during_a_pause_is_decided_afterwards(work: Work, environment: Path) -> None:
    """Its last trainings were running when it was paused; until it is resumed, no other trial can begin."""
    job, training = searched(work)
    claims = [claim for _ in range(4) if (claim := work.leases.claim())]
    work.controls.pause(job.id)
    for claim in claims:
        training.trainer.work(claim)
        work.leases.close(claim)
    with pytest.raises(Conflict, match="budget cannot be changed"):
        work.controls.extend(job.id, {"trials": 9})
    with pytest.raises(Conflict, match="begins no more trials"):
        work.controls.enqueue(job.id, {})
    resumed = work.controls.resume(job.id).state
    training.run()

    assert resumed == "stopping"
    assert work.job(job).state == "completed"
    assert decided(work)[0].run == 1


@only_sqlite
def test_a_restarted_job_has_another_run_off(work: Work, environment: Path) -> None:
    """The new run-off has other seeds and another opening of the test set."""
    job, training = searched(work)
    training.run()
    work.controls.extend(job.id, {"trials": 5})
    training.run()
    runs = {(one.run, one.seed): one.split_seed for one in reruns(work)}

    assert work.job(job).state == "completed"
    assert len(set(runs.values())) == len(runs) == 4
    assert len(training.openings()) == 2


@only_sqlite
def test_the_finalists_keep_their_checkpoints(work: Work, environment: Path) -> None:
    """Each finalist can then be published, even if other trials beat it in every respect."""
    searched(work)
    kept = {file.trial for file in artifacts(work) if file.kind == "checkpoint"}

    assert {one.trial for one in reruns(work)} <= kept


@only_sqlite
def test_the_best_trial_is_published_if_the_chosen_one_has_lost_its_checkpoint(work: Work, environment: Path) -> None:
    """This happens if the checkpoint was damaged and training the trial again failed."""
    job, training = searched(work)
    while (claim := work.leases.claim()) is not None and claim.purpose == PackPurpose.RUN_OFF:
        training.trainer.work(claim)
        work.leases.close(claim)
    assert claim is not None
    decide(claim, training.bench)
    with work.database.writing() as session:
        chosen = session.scalars(select(RunOff)).one()
        best = session.get_one(Job, job.id).best_trial
        chosen.winner = next(n for n in (one.trial for one in session.scalars(select(Rerun))) if n != best)
        of_chosen = (col(Artifact.trial) == chosen.winner, col(Artifact.kind) == "checkpoint")
        for file in session.scalars(select(Artifact).where(*of_chosen)):
            session.delete(file)

    assert PublicationRows(work.database).winner(claim).trial.number == best
