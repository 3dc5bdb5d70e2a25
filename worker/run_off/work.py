"""The work of a run-off: train the best trials again, then choose the winner."""

from collections import defaultdict
from typing import cast

import numpy as np

from ml.datasets import Arrays, data_split
from ml.errors import CheckpointError
from ml.records import Stop, step_of
from ml.specs import TuneSpec
from ml.statistics.run_off import Finalist, verdict
from ml.training.checkpointing import CheckpointRule
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack
from ml.training.retraining import Reached, Retraining, predicted, retrain
from worker.artifacts.new_files import NewFiles
from worker.artifacts.store import Store
from worker.database.tables import Trial
from worker.ledger.job_spec import tune_spec
from worker.ledger.leases import Claim
from worker.run_off.rows import EndedRerun, Repeat, RunOffRows
from worker.training.ledger_book import LedgerBook
from worker.training.workbench import Workbench


def rerun(claim: Claim, bench: Workbench) -> bool:
    """Train the finalists of a claimed pack again, on a data split of their own, from where the pack was left."""
    book, rows = bench.book(claim), RunOffRows(bench.database)
    spec = book.warm.search.spec
    repeats = rows.work(claim)
    record = book.open()
    if record is None or all(repeat.rerun.state for repeat in repeats):
        return False
    split_seed = repeats[0].rerun.split_seed
    data = bench.data(spec, split_seed)
    trials = [_retraining(repeat.trial) for repeat in repeats]
    keeper = _PackKeeper(book)
    for reached in retrain(spec, data, record, trials, split_seed, keeper.interrupted):
        if reached:
            _record(book, rows, reached, data)
        if not keeper.goes_on():
            break
    return False


def _retraining(trial: Trial) -> Retraining:
    """Return a trial to be trained up to the epoch that was its best in the search.

    The new validation images must not choose the epoch, because they judge the trial.
    """
    until = None if trial.best_epoch is None else step_of(trial.best_epoch)
    return Retraining(trial.number, trial.params or {}, until)


class _PackKeeper:
    """The checkpoints of a run-off's pack, and the decision whether its training continues."""

    def __init__(self, book: LedgerBook) -> None:
        self.book = book
        self.pack: LanePack | None = None
        self.checkpoints = CheckpointRule(book.checkpoint_seconds)

    def interrupted(self, pack: LanePack) -> bool:
        """Return whether training must pause before its next step."""
        self.pack = pack
        return self.book.should_stop() is not None or self.checkpoints.due

    def goes_on(self) -> bool:
        """Checkpoint the pack if that is due or the pack was released; return whether training continues here."""
        stop = self.book.should_stop()
        if self.pack is not None and (stop == Stop.RELEASED or (stop is None and self.checkpoints.due)):
            with self.checkpoints.timed():
                self.book.keep(self.pack.checkpoint())
        return stop is None


def _record(book: LedgerBook, rows: RunOffRows, reached: Reached, data: TrainingData) -> None:
    """Save the predictions of lanes that ended, then write the rows that point to them."""
    measured = [(lane.number, found) for lane, found in reached if found is not None]
    with NewFiles(book.store) as files:
        ended = [_ended(book, files, lane, data) for lane, _ in reached if not lane.running]
        rows.record(book.claim, measured, ended)


def _ended(book: LedgerBook, files: NewFiles, lane: Lane, data: TrainingData) -> EndedRerun:
    """Return how a lane ended; save its predictions if it may be judged."""
    if lane.best is None or not lane.state.judged:
        return EndedRerun(lane.number, lane.state, lane.reason, lane.best, None)
    # With pack and epoch in the path, two claims never write the same file.
    path = f"{book.claim.job_id}/reruns/{lane.number}.{book.claim.pack_id}.{book.claim.epoch}.labels"
    stored = files.write(path, predicted(lane, data).tobytes())
    return EndedRerun(lane.number, lane.state, lane.reason, lane.best, stored)


def decide(claim: Claim, bench: Workbench) -> None:
    """Decide the run-off of the claimed pack's job, if it has one that is not decided."""
    rows = RunOffRows(bench.database)
    job, repeats = rows.all(claim)
    if not repeats:
        return
    with bench.database.reading() as session:
        spec = tune_spec(session, job)
    arrays = bench.find(spec.dataset.name).load()
    by_trial: dict[int, list[Repeat]] = defaultdict(list)
    for repeat in repeats:
        by_trial[repeat.trial.number].append(repeat)
    finalists, lost = [], {}
    for number, same in by_trial.items():
        try:
            finalists.append(_finalist(same, spec, arrays, bench.store))
        except CheckpointError as error:
            lost[number] = str(error)
    rows.decide(claim, verdict(finalists, spec.training_images, lost, job.rules))


def _finalist(repeats: list[Repeat], spec: TuneSpec, arrays: Arrays, store: Store) -> Finalist:
    """Return a trial with the images that each of its trainings classified correctly.

    Raises:
        CheckpointError: if one of its trainings left no predictions.
    """
    trial = repeats[0].trial
    return Finalist(
        trial.number,
        cast("float", trial.val_accuracy),
        trial.weights,
        trial.flops,
        [_right(repeat, spec, arrays, store) for repeat in repeats],
    )


def _right(repeat: Repeat, spec: TuneSpec, arrays: Arrays, store: Store) -> np.ndarray:
    """Return which validation images of its split a training classified correctly, bool [n]."""
    if repeat.predictions is None:
        raise CheckpointError(f"seed {repeat.rerun.seed} is {repeat.lost}")
    labels = np.frombuffer(store.read(repeat.predictions.path, repeat.predictions.sha256), np.uint8)
    validation = data_split(len(arrays), spec.dataset.official_test, spec.split, repeat.rerun.split_seed).validation
    used = validation[: len(labels)]  # a job that is limited to a number of images uses the first ones
    right: np.ndarray = labels == arrays.labels[used]
    return right
