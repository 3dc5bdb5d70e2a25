"""Admission: how trials are drawn for a pack, join it, and take the place of lanes that ended."""

from dataclasses import dataclass
from itertools import count
from typing import Any

from ml.layers import flop_count, parameter_count
from ml.parameters.params import Params
from ml.records import Event, PackRecord, Started, TrialRecord, TrialState
from ml.seeds import SeedPurpose, derive
from ml.training.lane import Lane
from ml.training.pack import LanePack
from ml.tuning.context import TuningContext
from ml.tuning.history import History, start_of
from ml.tuning.keys import key_of
from ml.tuning.outcome import end_failed, finished
from ml.tuning.search import Search

REFILLS = 2  # per lane; then no more trials join, so that other keys get their turn
# A pack takes at most a fourteenth of the trials that began before it. So a search first meets many keys, and has wide
# packs once it has results that tell which keys are good. benchmarks.surrogates compares this with one at a time.
SPREAD = 14

Drawn = tuple[Params, TrialRecord]


@dataclass(frozen=True)
class Room:
    """The room that a pack has for trials."""

    lanes: int  # trials at a time
    refills: int  # trials that may take the place of others

    @classmethod
    def of(cls, search: Search, opened: PackRecord, first: int, width: int) -> "Room":
        """Return the room of a pack.

        Args:
            search: of the job. By rules 1 every pack has all lanes.
            opened: the pack. If it was made of another pack's trials, none take their places.
            first: the number of the pack's first trial: as many began before it.
            width: the most lanes; a single lane has no refills.
        """
        if width == 1 or opened.parted:
            return cls(width, 0)
        if search.spec.rules == 1 or not search.draws_keys:
            return cls(width, REFILLS * width)
        return cls.spread(first, width)

    @classmethod
    def spread(cls, first: int, width: int) -> "Room":
        """Return the room of a pack whose first trial draws a key."""
        trials = max(1, first // SPREAD)
        lanes = min(width, trials)
        return cls(lanes, min(REFILLS * lanes, trials - lanes))


class TrialSource:
    """The trials that a pack can begin: those that were reserved for it, then new ones."""

    def __init__(self, context: TuningContext, opened: PackRecord, suggestion: dict[str, Any]) -> None:
        """Collect the reserved trials of an opened pack.

        Args:
            context: the job's context.
            opened: the pack. A pack that was made of another pack's trials begins no other trials.
            suggestion: the values of the pack's first trial, whose key all others share; empty until it is drawn.
        """
        self._context = context
        self._suggestion = suggestion
        self._closed = opened.parted
        self._waiting = [t for t in opened.trials if t.start_step is None and t.state == TrialState.RUNNING]

    @property
    def waiting(self) -> list[int]:
        """The numbers of the reserved trials that have not begun."""
        return [trial.number for trial in self._waiting]

    def first(self) -> Drawn:
        """Draw the first trial of a fresh pack, which decides its key."""
        params, record = self._draw(self._waiting.pop(0))
        self._suggestion = record.suggestion or {}
        return params, record

    def next(self) -> Drawn | None:
        """Draw another trial, given the key of the first; None if no more may begin."""
        reserved = self._reserved()
        return None if reserved is None else self._draw(reserved)

    def _reserved(self) -> TrialRecord | None:
        book, search = self._context.book, self._context.search
        if book.should_stop() is not None or self._closed:
            return None
        return self._waiting.pop(0) if self._waiting else book.reserve(lambda n: search.fits(n, self._suggestion))

    def _draw(self, reserved: TrialRecord) -> Drawn:
        """Return a trial with its hyper-parameters: drawn now, or recalled if it has begun before."""
        search = self._context.search
        if reserved.suggestion is not None:
            return search.recall(reserved), reserved
        drawn = search.ask(reserved.number, self._suggestion or None, reserved.enqueued)
        return drawn if reserved.enqueued or not search.ends else self._taken(drawn)

    def _taken(self, drawn: Drawn) -> Drawn:
        """Take a point of a finite space for a trial; if another trainer has just taken it, take an untried one."""
        other: Drawn | None = drawn
        while other is not None and not self._context.book.take(other[1]):
            drawn = other
            self._context.catch_up()
            other = self._context.search.ask_untried(drawn[1], self._suggestion or None)
        return other or drawn


class Admission:
    """The admission of trials to one pack."""

    def __init__(
        self, context: TuningContext, pack: LanePack, source: TrialSource, history: History, refills: int
    ) -> None:
        self.context = context
        self.pack = pack
        self.source = source
        self.history = history
        self.refills = refills  # left
        self.places = 0  # free lanes that no trial has taken yet at this position; 0 once the pack goes on
        self.taken = 0  # trials that began at this position
        self.separate: list[int] = []  # trials that cannot train in this pack, by number
        self._recorded_to = history.recorded_to(pack.stream.batch_size)

    def begin(self, drawn: Drawn) -> list[Event]:
        """Let a drawn trial join the pack; return the events of its start and, if it cannot be built, of its end."""
        params, record = drawn
        lane = self._lane(params, record, self._free_place())
        ended = self._join(lane)
        self._took(1)
        return [self._started(lane, record), *ended]

    def fill(self, lanes: int) -> list[Event]:
        """Let up to `lanes` trials join, drawn given the first one's key; return the events of their start.

        If the pack must stop meanwhile, the places that are still free are filled when it is resumed.
        """
        events: list[Event] = []
        self.places = lanes
        while self.places and (drawn := self.source.next()) is not None:
            events += self.begin(drawn)
        if self.context.book.should_stop() is None:
            self.places = 0
        return events

    def refill(self, ended: int) -> None:
        """Begin as many trials as have ended, while refills last.

        A resumed pack first lets the trials join that joined at this position before.
        """
        if not ended:
            return
        self.places, self.taken = min(ended, self.refills), 0
        self._took(self.rejoin())
        self._fill_places()

    def resume(self, places: int, taken: int | None) -> None:
        """Continue a pack as it was left at this position.

        Args:
            places: that no trial had taken.
            taken: trials that had begun at this position; None if a checkpoint of an earlier release does not say.
        """
        self.places = places
        rejoined = self.rejoin()
        self.taken = rejoined if taken is None else taken  # of an earlier position, if the pack went on from there
        self._took(max(0, rejoined - self.taken))
        self.separate_unjoined()
        self._fill_places()

    def _fill_places(self) -> None:
        """Begin trials in the free places, unless the records show that the pack went on without them."""
        if self.pack.position < self._recorded_to:
            self.places = 0
        if self.places:
            self.context.catch_up()
            self.context.book.record(self.fill(self.places))

    def _took(self, trials: int) -> None:
        """Count trials that took places; only those that began after the first step took a refill each."""
        self.taken += trials
        self.places = max(0, self.places - trials)
        if self.pack.position > 0:
            self.refills = max(0, self.refills - trials)

    def rejoin(self) -> int:
        """Let trials join that did so at this position before; return how many there were."""
        here = self.history.begun_at(self.pack.position)
        known = {lane.number for lane in self.pack.running}
        for trial in here:
            if trial.number not in known and (trial.state == TrialState.RUNNING or trial.rungs):
                ended = self._join(self._lane(self.context.search.recall(trial), trial, trial.lane))
                if ended:
                    self.context.book.record(ended)
        return len(here)

    def separate_unjoined(self) -> None:
        """Set trials apart that have begun by now but did not join the resumed pack."""
        known = {lane.number for lane in self.pack.running}
        begun = [n for n in self.history.running if start_of(self.history.trials[n]) <= self.pack.position]
        self.separate += [number for number in begun if number not in known]

    def left(self) -> list[list[int]]:
        """Return the groups of trials that need a pack of their own, by number."""
        groups = [*([number] for number in self.separate), self.source.waiting]
        return [group for group in groups if group]

    def _lane(self, params: Params, record: TrialRecord, place: int) -> Lane:
        spec, stream_seed = self.context.spec, self.pack.stream.seed
        init_seed = derive(spec.seed, SeedPurpose.INIT, record.number)
        return Lane(record.number, spec, params, init_seed, stream_seed, place=place, recorded=dict(record.rungs))

    def _free_place(self) -> int:
        """Return the lowest position in the pack that no running lane holds."""
        taken = {lane.place for lane in self.pack.running}
        return next(place for place in count() if place not in taken)

    def _started(self, lane: Lane, record: TrialRecord) -> Started:
        flops, weights = self._size(lane.params)
        return Started(
            number=lane.number,
            params=lane.params.model_dump(exclude_none=True),
            suggestion=record.suggestion or {},
            attrs=record.attrs,
            init_seed=lane.init_seed,
            stream_seed=lane.stream_seed,
            start_step=self.pack.position,
            flops=flops,
            weights=weights,
            lane=lane.place,
        )

    def _size(self, params: Params) -> tuple[int | None, int | None]:
        """Return the FLOPs of one image and the number of weights; None if the network cannot be built."""
        try:
            layers = self.context.spec.layers(params)
            return flop_count(layers, self.context.spec.image), parameter_count(layers)
        except Exception:  # `_join` reports this error
            return None, None

    def _join(self, lane: Lane) -> list[Event]:
        """Let a lane join, or set it apart if its key is another; an error ends this lane alone.

        The key can be another, because a search only probes which names decide the kinds of layer.
        """
        try:
            if self._fits(lane):
                self.pack.join(lane)
            else:
                lane.place = 0  # in the pack that it is given
                self.separate.append(lane.number)
        except Exception as error:  # any error of a network
            end_failed(lane, error)
            return [finished(lane)]
        return []

    def _fits(self, lane: Lane) -> bool:
        running, spec = self.pack.running, self.context.spec
        return not running or key_of(spec, lane.params) == key_of(spec, running[0].params)
