"""The work of a run-off: train the best trials again, and decide."""

from collections import defaultdict
from collections.abc import Callable
from typing import cast

import numpy as np

from ml.datasets import Arrays, data_split, datasets
from ml.errors import CheckpointError
from ml.records import Stop, step_of
from ml.specs import TuneSpec
from ml.statistics.run_off import Finalist, verdict
from ml.training.checkpointing import CheckpointRule
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack
from ml.training.retraining import Again, Reached, predicted, trained_again
from worker.artifacts.store import Store, drop_files
from worker.database.tables import Trial
from worker.errors import LeaseLost
from worker.ledger.job_spec import tune_spec
from worker.ledger.leases import Claim
from worker.run_off.rows import EndedRerun, Repeat, RunOffRows
from worker.training.ledger_book import LedgerBook


def rerun(
    book: LedgerBook, spec: TuneSpec, rerunning: RunOffRows, data_of: Callable[[TuneSpec, int], TrainingData]
) -> None:
    """Train what the claimed pack has to train, from where it was left."""
    repeats = rerunning.work(book.claim)
    record = book.open()
    if record is None or all(repeat.rerun.state for repeat in repeats):
        return
    cut_seed = repeats[0].rerun.cut_seed
    data = data_of(spec, cut_seed)
    trials = [_again(repeat.trial) for repeat in repeats]
    keeper = _PackKeeper(book)
    for reached in trained_again(spec, data, record, trials, cut_seed, keeper.interrupted):
        if reached:
            _record(book, rerunning, reached, data)
        if not keeper.goes_on():
            return


def _again(trial: Trial) -> Again:
    """A trial up to the epoch that was its best in the search: these images choose none, so that they can judge it."""
    until = None if trial.best_epoch is None else step_of(trial.best_epoch)
    return Again(trial.number, trial.params or {}, until)


class _PackKeeper:
    """Checkpoint the pack of a run-off when that is due, and say if it goes on."""

    def __init__(self, book: LedgerBook) -> None:
        self.book = book
        self.pack: LanePack | None = None
        self.checkpoints = CheckpointRule(book.checkpoint_seconds)

    def interrupted(self, pack: LanePack) -> bool:
        """Return whether training must pause before its next step."""
        self.pack = pack
        return self.book.should_stop() is not None or self.checkpoints.due

    def goes_on(self) -> bool:
        """Checkpoint the pack if that is due or it was released; return whether it goes on here."""
        stop = self.book.should_stop()
        if self.pack is not None and (stop == Stop.RELEASED or (stop is None and self.checkpoints.due)):
            with self.checkpoints.timed():
                self.book.keep(self.pack.checkpoint())
        return stop is None


def _record(book: LedgerBook, rerunning: RunOffRows, reached: Reached, data: TrainingData) -> None:
    """Save what the lanes that ended predict, then write the rows that point to it."""
    ended = [_ended(book, lane, data) for lane, _ in reached if not lane.running]
    measured = [(lane.number, found) for lane, found in reached if found is not None]
    try:
        unneeded = rerunning.record(book.claim, measured, ended)
    except LeaseLost:
        drop_files(book.store, [one.stored[0] for one in ended if one.stored])
        raise
    drop_files(book.store, unneeded)


def _ended(book: LedgerBook, lane: Lane, data: TrainingData) -> EndedRerun:
    """How a lane ended, with its predictions in the store where it may be judged."""
    if lane.best is None or not lane.state.judged:
        return EndedRerun(lane.number, lane.state, lane.reason, lane.best, None)
    # Pack and epoch in the path keep two claims from writing the same file.
    path = f"{book.claim.job_id}/reruns/{lane.number}.{book.claim.pack_id}.{book.claim.epoch}.labels"
    saved = book.store.write(path, predicted(lane, data).tobytes())
    return EndedRerun(lane.number, lane.state, lane.reason, lane.best, (path, saved))


def decide(claim: Claim, rerunning: RunOffRows, store: Store) -> None:
    """Decide the run-off of the claimed pack's job, where it has one that is not decided."""
    job, repeats = rerunning.all(claim)
    if not repeats:
        return
    spec = tune_spec(job)
    arrays = datasets[spec.dataset].load()
    by_trial: dict[int, list[Repeat]] = defaultdict(list)
    for repeat in repeats:
        by_trial[repeat.trial.number].append(repeat)
    finalists, lost = [], {}
    for number, same in by_trial.items():
        try:
            finalists.append(_finalist(same, spec, arrays, store))
        except CheckpointError as error:
            lost[number] = str(error)
    rerunning.decide(claim, verdict(finalists, spec.training_images, lost))


def _finalist(repeats: list[Repeat], spec: TuneSpec, arrays: Arrays, store: Store) -> Finalist:
    """A trial with all that it was right in; CheckpointError where one training of it came to nothing."""
    trial = repeats[0].trial
    return Finalist(
        trial.number,
        cast("float", trial.val_accuracy),
        trial.weights,
        trial.flops,
        [_right(repeat, spec, arrays, store) for repeat in repeats],
    )


def _right(repeat: Repeat, spec: TuneSpec, arrays: Arrays, store: Store) -> np.ndarray:
    """Which validation images of its cut a training told right, bool [n]."""
    if repeat.predictions is None:
        raise CheckpointError(f"seed {repeat.rerun.seed} is {repeat.lost}")
    labels = np.frombuffer(store.read(repeat.predictions.path, repeat.predictions.sha256), np.uint8)
    validation = data_split(
        len(arrays), datasets[spec.dataset].official_test, spec.split, repeat.rerun.cut_seed
    ).validation
    right: np.ndarray = (
        labels == arrays.labels[validation[: len(labels)]]
    )  # the first of them, where the job is held to few
    return right
