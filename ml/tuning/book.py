"""The book of a tuning: where packs come from, and where what happens to their trials is written."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf
from time import monotonic
from typing import Protocol, cast

from ml.records import (
    Checkpoint,
    Event,
    Finished,
    Measured,
    PackRecord,
    Started,
    Stop,
    TrialRecord,
    TrialState,
)
from ml.seeds import SeedPurpose, derive
from ml.specs import TuneSpec
from ml.training.lane import objective
from ml.tuning.keys import Key


class Book(Protocol):
    """Where packs come from and where what happens to them is written: in memory, or the worker's ledger."""

    checkpoint_seconds: float  # between two checkpoints of a pack, at least

    def open(self) -> PackRecord | None:
        """The next pack to work on; None at the end."""

    def reserve(self, fits: Callable[[int], bool]) -> TrialRecord | None:
        """One more trial for this pack.

        None at the end, and where `fits` says of its number that it must wait for another pack.
        """

    def width(self, key: Key, measured: Callable[[], int]) -> int:
        """How many trials of this job train together: what was settled when it first ran, else `measured()`.

        `key` is what those of this pack share.
        """

    def divide(self, groups: Sequence[Sequence[int]]) -> None:
        """Give running trials of this pack, by number, packs of their own."""

    def changes(self) -> Iterable[TrialRecord]:
        """Every trial that changed since the last call, those of others included."""

    def record(self, events: Sequence[Event]) -> None:
        """Write down what happened, all of it or nothing."""

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep what it takes to go on with this pack."""

    def should_stop(self) -> Stop | None:
        """Whether the pack must end now; asked before every training step, so it must be cheap."""

    def cancelled(self) -> Collection[int]:
        """The trials, by number, that somebody cancelled; asked as often."""


@dataclass
class MemoryBook:
    """A book that lives and dies with the process."""

    spec: TuneSpec
    on_event: Callable[[Event], None] = lambda event: None
    trials: dict[int, TrialRecord] = field(default_factory=dict)
    began: float = field(default_factory=monotonic)
    winner: Finished | None = None
    checkpoint_seconds: float = inf
    _width: int | None = None
    _changed: list[TrialRecord] = field(default_factory=list)
    _divided: list[PackRecord] = field(default_factory=list)
    _opened: PackRecord | None = None

    def open(self) -> PackRecord | None:
        """A pack of trials that could not stay where they were, else a new one while the budget lasts."""
        self._opened = self._divided.pop(0) if self._divided else self._new_pack()
        return self._opened

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

    def divide(self, groups: Sequence[Sequence[int]]) -> None:
        """Open them next."""
        for group in groups:
            for lane, number in enumerate(group):
                self.trials[number].lane = lane
        seed = cast("PackRecord", self._opened).stream_seed
        self._divided += [
            PackRecord(seed, [self.trials[n] for n in group], len(group), parted=True) for group in groups
        ]

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

    def keep(self, checkpoint: Checkpoint) -> None:
        """Nothing: it would die with the process."""

    def should_stop(self) -> Stop | None:
        """Whether the seconds are spent."""
        seconds = self.spec.budget.seconds
        return Stop.SECONDS if seconds is not None and monotonic() - self.began > seconds else None

    def cancelled(self) -> Collection[int]:
        """Nobody cancels a trial here."""
        return ()

    def _new_pack(self) -> PackRecord | None:
        first = self.reserve(lambda number: True)
        return None if first is None else PackRecord(derive(self.spec.seed, SeedPurpose.STREAM, first.number), [first])

    def _note(self, trial: TrialRecord, event: Event) -> None:
        match event:
            case Started():
                trial.suggestion, trial.attrs, trial.values = event.suggestion, event.attrs, {}
                trial.start_step, trial.lane, trial.rungs = event.start_step, event.lane, {}
            case Measured():
                value = objective(self.spec, event.measurement)
                trial.attrs = event.attrs
                trial.rungs[event.measurement.step] = event.measurement
                trial.values |= {} if value is None else {event.measurement.step: value}
            case Finished():
                trial.state, trial.value, trial.reason = event.state, event.value, event.reason
                self._crown(event)

    def _crown(self, event: Finished) -> None:
        if event.value is None or not event.checkpoint:
            return
        if self.winner is None or self._rank(event) < self._rank(self.winner):
            self.winner = event

    def _rank(self, event: Finished) -> tuple[float, int]:
        """The lower, the better; of equals the trial that was begun first leads."""
        value = cast("float", event.value)
        return (-value if self.spec.maximize else value), event.number
