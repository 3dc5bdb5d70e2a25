"""Tuning: reserve a trial, ask for its parameters, train, report, prune; until the book has no more."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol

from ml.datasets import datasets
from ml.layers import to_json
from ml.records import Checkpoint, Event, Finished, Measured, Measurement, Started, Stop, TrialRecord, TrialState
from ml.search import Search
from ml.seeds import Purpose, derive
from ml.specs import TuneSpec
from ml.train import Lane, TrainingData, fit, objective


class Book(Protocol):
    """Where trials come from and where what happens to them is written: in memory, or the worker's ledger."""

    def reserve(self) -> TrialRecord | None:
        """The next trial: its number alone if new, its suggestion too if it was begun before; None at the end."""

    def changes(self) -> Iterable[TrialRecord]:
        """Every trial that changed since the last call, those of others included."""

    def record(self, event: Event) -> None:
        """Write down what happened."""

    def should_stop(self) -> Stop | None:
        """Whether running trials must end now; asked before every training step, so it must be cheap."""


def tune(spec: TuneSpec, data: TrainingData, book: Book, search: Search) -> None:
    """Run trials until the book has no more or says stop."""
    while book.should_stop() is None and (reserved := book.reserve()) is not None:
        _catch_up(search, book)
        lane = _begin(spec, search, book, reserved)
        _train(lane, data, search, book)
        book.record(Finished(lane.number, lane.state, lane.reason, lane.best, _checkpoint(lane)))
    _catch_up(search, book)


def _catch_up(search: Search, book: Book) -> None:
    for record in book.changes():
        search.apply(record)


def _begin(spec: TuneSpec, search: Search, book: Book, reserved: TrialRecord) -> Lane:
    """Draw a new trial, or take up one that was begun before."""
    number = reserved.number
    if reserved.suggestion is None:
        params, reserved = search.ask(number)
    else:
        params = search.resume(reserved)
    init_seed, stream_seed = derive(spec.seed, Purpose.INIT, number), derive(spec.seed, Purpose.STREAM, number)
    lane = Lane(number, spec, params, init_seed, stream_seed)
    drawn = reserved.suggestion or {}
    shown = params.model_dump(exclude_none=True)
    book.record(Started(number, shown, drawn, reserved.attrs, init_seed, stream_seed, lane.start_step))
    return lane


def _train(lane: Lane, data: TrainingData, search: Search, book: Book) -> None:
    """Train a lane to its end, whatever ends it."""
    for measured in _measurements(lane, data, lambda: book.should_stop() is not None):
        value = objective(lane.spec, measured)
        _catch_up(search, book)
        pruned = value is not None and search.report(lane.number, measured.step, value)
        book.record(Measured(lane.number, measured, search.attrs(lane.number)))
        if pruned and lane.state == TrialState.RUNNING:
            lane.end(TrialState.PRUNED, f"pruned after epoch {measured.epoch:g}")
            return
    if lane.state == TrialState.RUNNING:
        _cut(lane, book.should_stop())


def _measurements(lane: Lane, data: TrainingData, cut_now: Callable[[], bool]) -> Iterator[Measurement]:
    """What `fit` yields; an error of any kind ends this trial as failed and leaves the job to go on."""
    try:
        yield from fit(lane, data, cut_now)
    except Exception as error:
        lane.end(TrialState.FAILED, f"{type(error).__name__}: {error}"[:2000])


def _cut(lane: Lane, stop: Stop | None) -> None:
    """End a lane that was cut between two epochs."""
    if stop == Stop.SECONDS and lane.best is not None:
        lane.end(TrialState.STOPPED_EARLY, "the job's seconds were spent")
    elif stop == Stop.SECONDS:
        lane.end(TrialState.CANCELLED, "the job's seconds were spent before the first epoch ended")
    else:
        lane.end(TrialState.CANCELLED, "cancelled")


def _checkpoint(lane: Lane) -> Checkpoint | None:
    """The best epoch's weights and what is needed to use them; None where the trial cannot win."""
    if lane.best is None or not lane.state.judged:
        return None
    dataset = datasets[lane.spec.dataset]
    card = {
        "model": lane.spec.model,
        "shape": list(dataset.shape),
        "classes": list(dataset.classes),
        "layers": to_json(lane.spec.layers(lane.params)),
        "params": lane.params.model_dump(mode="json", exclude_none=True),
        "trial": lane.number,
        "epoch": lane.best.epoch,
        "val_accuracy": lane.best.val_accuracy,
        "val_loss": lane.best.val_loss,
        "spec": lane.spec.model_dump(mode="json"),
    }
    return Checkpoint({name: tensor.numpy() for name, tensor in lane.best_weights.items()}, card)


@dataclass
class MemoryBook:
    """A book that lives and dies with the process."""

    spec: TuneSpec
    on_event: Callable[[Event], None] = lambda event: None
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    began: float = field(default_factory=monotonic)
    winner: Finished | None = None
    _changed: list[TrialRecord] = field(default_factory=list)

    def reserve(self) -> TrialRecord | None:
        """A new trial while the budget lasts."""
        if len(self.trials) >= self.spec.trial_limit:
            return None
        record = TrialRecord(len(self.trials), TrialState.RUNNING)
        self.trials[record.number] = record
        return record

    def changes(self) -> list[TrialRecord]:
        """What `record` changed since the last call."""
        changed, self._changed = self._changed, []
        return changed

    def record(self, event: Event) -> None:
        """Keep what a search needs, and the winner."""
        trial = self.trials[event.number]
        match event:
            case Started():
                trial.suggestion, trial.attrs = event.suggestion, event.attrs
            case Measured():
                value = objective(self.spec, event.measurement)
                trial.attrs = event.attrs
                trial.values |= {} if value is None else {event.measurement.step: value}
            case Finished():
                trial.state, trial.value = event.state, objective(self.spec, event.best)
                self._crown(event)
        self._changed.append(trial)
        self.on_event(event)

    def should_stop(self) -> Stop | None:
        """Whether the seconds are spent."""
        seconds = self.spec.budget.seconds
        return Stop.SECONDS if seconds is not None and monotonic() - self.began > seconds else None

    def _crown(self, event: Finished) -> None:
        challenger = objective(self.spec, event.best) if event.checkpoint else None
        champion = objective(self.spec, self.winner.best) if self.winner else None
        if challenger is None:
            return
        if champion is None or (challenger > champion if self.spec.maximize else challenger < champion):
            self.winner = event
