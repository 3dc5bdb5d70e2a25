"""The book of a tuning: it hands out packs and records what happens to their trials."""

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
    """The source of packs and the record of their trials: in memory, or the worker's ledger."""

    checkpoint_seconds: float  # the least time between two checkpoints of a pack

    def open(self) -> PackRecord | None:
        """Return the next pack to work on; None at the end."""

    def reserve(self, fits: Callable[[int], bool]) -> TrialRecord | None:
        """Reserve one more trial for this pack.

        Args:
            fits: returns whether a trial with the given number can join this pack.

        Returns:
            The trial. None at the end, and if the next trial does not fit: it then waits for another pack.
        """

    def take(self, drawn: TrialRecord) -> bool:
        """Note the point of a finite space that a trial will try; return False if another trial has it."""

    def width(self, key: Key, measured: Callable[[], int]) -> int:
        """Return how many trials of this job train together.

        Args:
            key: shared by the trials of this pack.
            measured: measures the width; it is called only if the job has none yet, and decides it from then on.
        """

    def divide(self, groups: Sequence[Sequence[int]]) -> None:
        """Move each group of running trials, by number, from this pack to a pack for that group."""

    def changes(self) -> Iterable[TrialRecord]:
        """Return every trial that changed since the last call, including other trainers' trials."""

    def record(self, events: Sequence[Event]) -> None:
        """Record events: all of them or none."""

    def keep(self, checkpoint: Checkpoint) -> None:
        """Keep a checkpoint from which this pack can be resumed."""

    def should_stop(self) -> Stop | None:
        """Return why the pack must end now; None if it may go on.

        It is called before every training step, so it must be cheap.
        """

    def cancelled(self) -> Collection[int]:
        """Return the numbers of cancelled trials; called as often as `should_stop`."""


@dataclass
class MemoryBook:
    """A book in memory, which ends with the process."""

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
        """Return a pack of trials that left another pack, else a new one while the budget lasts."""
        self._opened = self._divided.pop(0) if self._divided else self._new_pack()
        return self._opened

    def reserve(self, fits: Callable[[int], bool]) -> TrialRecord | None:
        """Return a new trial while the budget lasts."""
        number = len(self.trials)
        if number >= self.spec.trial_limit or not fits(number):
            return None
        self.trials[number] = TrialRecord(number, TrialState.RUNNING)
        return self.trials[number]

    def take(self, drawn: TrialRecord) -> bool:
        """Return True: the search knows of all trials."""
        return True

    def width(self, key: Key, measured: Callable[[], int]) -> int:
        """Return the width that was measured first."""
        self._width = self._width or measured()
        return self._width

    def divide(self, groups: Sequence[Sequence[int]]) -> None:
        """Queue a pack for each group, to be opened next."""
        for group in groups:
            for lane, number in enumerate(group):
                self.trials[number].lane = lane
        seed = cast("PackRecord", self._opened).stream_seed
        self._divided += [
            PackRecord(seed, [self.trials[n] for n in group], len(group), parted=True) for group in groups
        ]

    def changes(self) -> list[TrialRecord]:
        """Return the trials that `record` changed since the last call."""
        changed, self._changed = self._changed, []
        return changed

    def record(self, events: Sequence[Event]) -> None:
        """Keep what a search needs to know, and the winner."""
        for event in events:
            self._apply(self.trials[event.number], event)
            self._changed.append(self.trials[event.number])
            self.on_event(event)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Do nothing: a checkpoint in memory would be lost with the process."""

    def should_stop(self) -> Stop | None:
        """Return SECONDS once the job's seconds are spent."""
        seconds = self.spec.budget.seconds
        return Stop.SECONDS if seconds is not None and monotonic() - self.began > seconds else None

    def cancelled(self) -> Collection[int]:
        """Return no trials: there is no way to cancel one."""
        return ()

    def _new_pack(self) -> PackRecord | None:
        first = self.reserve(lambda number: True)
        return None if first is None else PackRecord(derive(self.spec.seed, SeedPurpose.STREAM, first.number), [first])

    def _apply(self, trial: TrialRecord, event: Event) -> None:
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
                self._note_winner(event)

    def _note_winner(self, event: Finished) -> None:
        if event.value is None or not event.checkpoint:
            return
        if self.winner is None or self._rank(event) < self._rank(self.winner):
            self.winner = event

    def _rank(self, event: Finished) -> tuple[float, int]:
        """Return a rank; lower is better. Of equal trials the one that began first is better."""
        value = cast("float", event.value)
        return (-value if self.spec.maximize else value), event.number
