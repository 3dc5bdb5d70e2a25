"""Tuning: reserve trials, ask for their parameters, train them as a pack, report, prune, refill."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Protocol

from ml.datasets import datasets
from ml.keys import Key, key_of
from ml.layers import to_json
from ml.packs import Pack, Rungs
from ml.params import Params
from ml.records import Checkpoint, Event, Finished, Measured, Started, Stop, TrialRecord, TrialState
from ml.search import Search
from ml.seeds import Purpose, derive
from ml.specs import TuneSpec
from ml.train import Lane, TrainingData, objective
from ml.width import check_memory, measured_width

REFILLS = 2  # a lane; then the pack drains, so that other keys get their turn


class Book(Protocol):
    """Where trials come from and where what happens to them is written: in memory, or the worker's ledger."""

    def reserve(self, fits: Callable[[int], bool]) -> TrialRecord | None:
        """The next trial: its number alone if new, its suggestion too if it was begun before.

        None at the end, and where `fits` says of a new trial's number that it must wait for another pack.
        """

    def width(self, key: Key, measured: Callable[[], int]) -> int:
        """How many trials of this job train together: what was settled when it first ran, else `measured()`.

        `key` is what those of this pack share.
        """

    def changes(self) -> Iterable[TrialRecord]:
        """Every trial that changed since the last call, those of others included."""

    def record(self, events: Sequence[Event]) -> None:
        """Write down what happened, all of it or nothing."""

    def should_stop(self) -> Stop | None:
        """Whether running trials must end now; asked before every training step, so it must be cheap."""


def tune(spec: TuneSpec, data: TrainingData, book: Book, search: Search) -> None:
    """Run pack after pack until the book has no more trials or says stop."""
    while tune_pack(spec, data, book, search):
        pass


def tune_pack(spec: TuneSpec, data: TrainingData, book: Book, search: Search) -> bool:
    """Run one pack; False where there was none to run. LanesError where memory does not hold the lanes asked for."""
    if book.should_stop() is not None or (first := book.reserve(lambda number: True)) is None:
        return False
    run = _PackRun(spec, data, book, search)
    run.catch_up()
    run.run(first)
    run.catch_up()
    return True


class _NoTime(Exception):
    """The steps of a trial cannot be timed."""


@dataclass
class _PackRun:
    """One pack, from its first trial to its last."""

    spec: TuneSpec
    data: TrainingData
    book: Book
    search: Search
    first: int = 0  # the number of the pack's first trial
    like: dict[str, Any] = field(default_factory=dict)  # what that drew
    drawn: dict[int, TrialRecord] = field(default_factory=dict)  # every trial of the pack, as it was drawn
    refills: int = 0  # left
    apart: list[Lane] = field(default_factory=list)  # lanes whose layers turned out to be of other kinds
    error: Exception | None = None  # what ended training, where nobody asked for it

    def run(self, first: TrialRecord) -> None:
        """Train the first trial and whatever can train beside it."""
        params, record = self._drawn(first)
        self.first, self.like = first.number, record.suggestion or {}
        pack = self._pack(params)
        events = self._begin(pack, record, params)
        if pack.running:
            width = self._width(params)
            self.refills = REFILLS * width if width > 1 else 0
            events += self._fill(pack, width - 1)
        self.book.record(events)
        self._train(pack)
        self._train_each(self.apart)

    def catch_up(self) -> None:
        """Let the search know what this and other trainers have recorded."""
        for record in self.book.changes():
            self.search.apply(record)

    def _width(self, params: Params) -> int:
        """How many lanes to begin with; one where steps cannot even be timed: training will say what is wrong."""
        try:
            width = self.book.width(key_of(self.spec, params), lambda: self._measured_width(params))
        except _NoTime:
            return 1
        return check_memory(self.spec, params, width, self.data.device)

    def _measured_width(self, params: Params) -> int:
        try:
            return measured_width(self.spec, params, self.data)
        except Exception as error:  # whatever a network raises
            raise _NoTime from error

    def _pack(self, params: Params) -> Pack:
        stream_seed = derive(self.spec.seed, Purpose.STREAM, self.first)
        return Pack.of(self.spec, self.data, params.batch_size, stream_seed)

    def _fill(self, pack: Pack, lanes: int) -> list[Event]:
        """Let up to so many trials join, drawn given the first one's key; the events of their start."""
        events: list[Event] = []
        for _ in range(lanes):
            stopped = self.book.should_stop() is not None
            reserved = None if stopped else self.book.reserve(lambda number: self.search.fits(number, self.like))
            if reserved is None:
                break
            params, record = self._drawn(reserved)
            events += self._begin(pack, record, params)
        return events

    def _drawn(self, reserved: TrialRecord) -> tuple[Params, TrialRecord]:
        """A trial with its hyper-parameters: drawn now, or when it was begun before."""
        if reserved.suggestion is not None:
            return self.search.resume(reserved), reserved
        return self.search.ask(reserved.number, self.like or None)

    def _begin(self, pack: Pack, record: TrialRecord, params: Params) -> list[Event]:
        """Let a trial join the pack, or set it apart where its layers are of other kinds; that it started."""
        self.drawn[record.number] = record
        init_seed = derive(self.spec.seed, Purpose.INIT, record.number)
        lane = Lane(record.number, self.spec, params, init_seed, pack.stream.seed)
        started = Started(
            number=lane.number,
            params=params.model_dump(exclude_none=True),
            suggestion=record.suggestion or {},
            attrs=record.attrs,
            init_seed=init_seed,
            stream_seed=lane.stream_seed,
            start_step=pack.position,
        )
        try:
            if pack.running and key_of(self.spec, params) != key_of(self.spec, pack.running[0].params):
                self.apart.append(lane)
            else:
                pack.join(lane)
        except Exception as error:  # a network that cannot be built ends this trial and no other
            lane.end(TrialState.FAILED, _words(error))
            return [started, _finished(lane)]
        return [started]

    def _train(self, pack: Pack) -> None:
        """Train a pack to its end, whatever ends it."""
        for rungs in self._rungs(pack):
            self._judge(rungs)
            self._refill(pack, sum(not lane.running for lane, _ in rungs))
        left = pack.running
        if self.error is not None and len(left) > 1:
            self._train_each(left)
            return
        for lane in left:
            if self.error is not None:
                lane.end(TrialState.FAILED, _words(self.error))
            else:
                _cut(lane, self.book.should_stop())
        self.book.record([_finished(lane) for lane in left])

    def _rungs(self, pack: Pack) -> Iterator[Rungs]:
        """What the pack yields; an error of any kind ends it and is kept."""
        self.error = None
        try:
            yield from pack.run(lambda: self.book.should_stop() is not None)
        except Exception as error:
            self.error = error

    def _judge(self, rungs: Rungs) -> None:
        """Record what was measured, and end the lanes that the pruner would end."""
        self.catch_up()
        events: list[Event] = []
        values = {lane.number: (measured.step, objective(self.spec, measured)) for lane, measured in rungs}
        pruned = self.search.report({n: (step, value) for n, (step, value) in values.items() if value is not None})
        for lane, measured in rungs:
            if lane.number in pruned and lane.running:
                lane.end(TrialState.PRUNED, f"pruned after epoch {measured.epoch:g}")
            events.append(Measured(lane.number, measured, self.search.attrs(lane.number)))
            if not lane.running:
                events.append(_finished(lane))
        self.book.record(events)

    def _refill(self, pack: Pack, ended: int) -> None:
        """Begin as many trials as have ended, while refills last."""
        if ended and self.refills:
            self.catch_up()
            events = self._fill(pack, min(ended, self.refills))
            self.refills = max(0, self.refills - ended)
            self.book.record(events)

    def _train_each(self, lanes: list[Lane]) -> None:
        """Begin each of these trials again by itself, so that one that cannot train fails alone."""
        for lane in lanes:
            alone = self._pack(lane.params)
            record = self.drawn[lane.number]
            self.refills = 0
            self.book.record(self._begin(alone, record, self.search.resume(record)))
            self._train(alone)


def _cut(lane: Lane, stop: Stop | None) -> None:
    """End a lane that was cut between two epochs."""
    if stop == Stop.SECONDS and lane.best is not None:
        lane.end(TrialState.STOPPED_EARLY, "the job's seconds were spent")
    elif stop == Stop.SECONDS:
        lane.end(TrialState.CANCELLED, "the job's seconds were spent before the first epoch ended")
    else:
        lane.end(TrialState.CANCELLED, "cancelled")


def _finished(lane: Lane) -> Finished:
    value = objective(lane.spec, lane.best)
    return Finished(lane.number, lane.state, lane.reason, lane.best, value, _checkpoint(lane))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:2000]


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
    _width: int | None = None
    _changed: list[TrialRecord] = field(default_factory=list)

    def reserve(self, fits: Callable[[int], bool]) -> TrialRecord | None:
        """A new trial while the budget lasts."""
        number = len(self.trials)
        if number >= self.spec.trial_limit or not fits(number):
            return None
        self.trials[number] = TrialRecord(number, TrialState.RUNNING)
        return self.trials[number]

    def width(self, key: Key, measured: Callable[[], int]) -> int:
        """What was measured first."""
        self._width = self._width or measured()
        return self._width

    def changes(self) -> list[TrialRecord]:
        """What `record` changed since the last call."""
        changed, self._changed = self._changed, []
        return changed

    def record(self, events: Sequence[Event]) -> None:
        """Keep what a search needs, and the winner."""
        for event in events:
            self._note(self.trials[event.number], event)
            self._changed.append(self.trials[event.number])
            self.on_event(event)

    def should_stop(self) -> Stop | None:
        """Whether the seconds are spent."""
        seconds = self.spec.budget.seconds
        return Stop.SECONDS if seconds is not None and monotonic() - self.began > seconds else None

    def _note(self, trial: TrialRecord, event: Event) -> None:
        match event:
            case Started():
                trial.suggestion, trial.attrs, trial.values = event.suggestion, event.attrs, {}
            case Measured():
                value = objective(self.spec, event.measurement)
                trial.attrs = event.attrs
                trial.values |= {} if value is None else {event.measurement.step: value}
            case Finished():
                trial.state, trial.value = event.state, event.value
                self._crown(event)

    def _crown(self, event: Finished) -> None:
        challenger = event.value if event.checkpoint else None
        champion = self.winner.value if self.winner else None
        if challenger is None:
            return
        if champion is None or (challenger > champion if self.spec.maximize else challenger < champion):
            self.winner = event
