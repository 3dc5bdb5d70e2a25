"""Tuning: reserve trials, draw their hyper-parameters, train them as a pack, report, prune, refill."""

from collections.abc import Iterator

from ml.records import Checkpoint, Stop, TrialState
from ml.specs import TuneSpec
from ml.training.checkpointing import CheckpointRule
from ml.training.lane import Lane, TrainingData
from ml.training.pack import Rungs
from ml.tuning.admission import Admission
from ml.tuning.book import Book
from ml.tuning.context import TuningContext
from ml.tuning.judge import Judge
from ml.tuning.open_pack import open_pack
from ml.tuning.outcome import end_failed, end_stopped, finished
from ml.tuning.search import Search


def tune(spec: TuneSpec, data: TrainingData, book: Book, search: Search) -> None:
    """Run pack after pack until the book has no more or asks to stop."""
    while book.should_stop() is None and tune_pack(spec, data, book, search):
        pass


def tune_pack(spec: TuneSpec, data: TrainingData, book: Book, search: Search) -> bool:
    """Run one pack.

    If the seconds are spent, a pack that had begun is still opened, so that what was measured is recorded.

    Returns:
        False if there was no pack to run.

    Raises:
        LanesError: if memory does not hold the lanes that the specification asks for.
    """
    if book.should_stop() not in (None, Stop.SECONDS) or (opened := book.open()) is None:
        return False
    context, checkpoints = TuningContext(spec, data, book, search), CheckpointRule(book.checkpoint_seconds)
    context.catch_up()
    admission = open_pack(context, opened)
    if admission is not None:
        _PackRun(context, admission, checkpoints).run()
    context.catch_up()
    return True


class _PackRun:
    """The training of one opened pack to its end."""

    def __init__(self, context: TuningContext, admission: Admission, checkpoints: CheckpointRule) -> None:
        self.book = context.book
        self.pack = admission.pack
        self.admission = admission
        self.judge = Judge(context, admission.history)
        self.checkpoints = checkpoints
        self.error: Exception | None = None  # that ended training

    def run(self) -> None:
        """Train the pack, and give trials that are left a pack of their own."""
        for rungs in self._rungs():
            if rungs:
                self.judge.judge(rungs)
                self.admission.refill(sum(not lane.running for lane, _ in rungs))
            self._end_cancelled()
            if self.book.should_stop() is not None:
                break
            if self.checkpoints.due:
                self._checkpoint()
        self._leave()
        if self.book.should_stop() is None:
            self.book.divide(self.admission.left())

    def _rungs(self) -> Iterator[Rungs]:
        """Yield what the pack yields; an error of any kind ends it and is noted."""
        try:
            yield from self.pack.run(self._interrupted)
        except Exception as error:
            self.error = error

    def _interrupted(self) -> bool:
        """Return whether training must pause before its next step."""
        if self.book.should_stop() is not None or self.checkpoints.due:
            return True
        cancelled = self.book.cancelled()
        # The lanes are looked at only if a trial was cancelled: there may be 128 of them.
        return bool(cancelled) and any(lane.number in cancelled for lane in self.pack.lanes)

    def _end_cancelled(self) -> None:
        """End the lanes of cancelled trials; their end is on record already."""
        for lane in self.pack.running:
            if lane.number in self.book.cancelled():
                lane.end(TrialState.CANCELLED, "cancelled")

    def _checkpoint(self) -> None:
        with self.checkpoints.timed():
            checkpoint = self.pack.checkpoint()
            admission = self.admission
            counts = {"refills": admission.refills, "places": admission.places, "taken": admission.taken}
            self.book.keep(Checkpoint(checkpoint.weights, checkpoint.card | counts))

    def _leave(self) -> None:
        """Checkpoint the pack if it goes on later; else end the lanes that are left."""
        if self.book.should_stop() != Stop.RELEASED:
            self._end(self.pack.running)
        elif self.error is None:  # after an error a step may be half taken: the last checkpoint stands
            self._checkpoint()

    def _end(self, left: list[Lane]) -> None:
        """End the lanes that training left running; if an error ended several, each goes on alone."""
        if self.error is not None and len(left) > 1:
            self.admission.separate += [lane.number for lane in left]
            return
        for lane in left:
            if self.error is not None:
                end_failed(lane, self.error)
            else:
                end_stopped(lane, self.book.should_stop())
        if left:
            self.book.record([finished(lane) for lane in left])
