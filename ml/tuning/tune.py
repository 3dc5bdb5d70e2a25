"""Tuning: reserve trials, ask for their parameters, train them as a pack, report, prune, refill."""

from collections.abc import Callable, Iterator
from time import monotonic
from typing import cast

from ml.datasets import datasets
from ml.layers import flop_count, parameter_count, to_json
from ml.parameters.params import Params
from ml.records import (
    OUT_OF_TIME,
    Checkpoint,
    Event,
    Finished,
    Measured,
    PackRecord,
    RungResult,
    Started,
    Stop,
    TrialRecord,
    TrialState,
)
from ml.seeds import SeedPurpose, derive
from ml.specs import TuneSpec
from ml.training.lane import Lane, TrainingData, objective
from ml.training.pack import LanePack, Rungs
from ml.tuning.book import Book
from ml.tuning.keys import key_of
from ml.tuning.search import Search
from ml.tuning.width import check_memory, measured_width

REFILLS = 2  # a lane; then the pack drains, so that other keys get their turn
CHECKPOINT_SHARE = 0.02  # of the time that checkpoints of a pack may take


def tune(spec: TuneSpec, data: TrainingData, book: Book, search: Search) -> None:
    """Run pack after pack until the book has no more or says stop."""
    while book.should_stop() is None and tune_pack(spec, data, book, search):
        pass


def tune_pack(spec: TuneSpec, data: TrainingData, book: Book, search: Search) -> bool:
    """Run one pack; False where there was none to run. LanesError where memory does not hold the lanes asked for.

    Of one that was begun, what was measured is written down, also where the seconds are spent.
    """
    if book.should_stop() not in (None, Stop.SECONDS) or (opened := book.open()) is None:
        return False
    run = _PackRun(spec, data, book, search, opened)
    run.catch_up()
    run.run()
    run.catch_up()
    return True


class _NoTime(Exception):
    """The steps of a trial cannot be timed."""


class _PackRun:
    """One pack, from its first trial to its last, or from where it was left.

    What was recorded of its trials stands: up to there they are trained again in silence, joining and ending where they
    did, so that the same lanes take the same steps together.
    """

    def __init__(self, spec: TuneSpec, data: TrainingData, book: Book, search: Search, opened: PackRecord) -> None:
        self.spec = spec
        self.data = data
        self.book = book
        self.search = search
        self.opened = opened
        self.begun = {t.number: t for t in opened.trials if t.start_step is not None}
        self.waiting = [t for t in opened.trials if t.start_step is None and t.state == TrialState.RUNNING]
        self.like = next((t.suggestion for t in self.begun.values() if t.suggestion), {})  # what the first drew
        self.refills = self._all_refills(opened.lanes)  # left
        self.recorded_to = 0  # the position up to which the stream was trained before
        self.apart: list[int] = []  # trials whose layers turned out to be of other kinds
        self.error: Exception | None = None  # what ended training, where nobody asked for it
        self.saved, self.cost = monotonic(), 0.0  # when the last checkpoint was made, and the seconds it took

    def run(self) -> None:
        """Train the trials and whatever can train beside them."""
        if not self.begun and (not self.waiting or self.book.should_stop() is not None):
            return  # somebody cancelled what there was before it was drawn, or there is no time to begin
        pack = self._resumed() if self.begun else self._fresh()
        self._train(pack)
        if self.book.should_stop() is None:
            groups = [*([number] for number in self.apart), [trial.number for trial in self.waiting]]
            self.book.divide([group for group in groups if group])

    def catch_up(self) -> None:
        """Let the search know what this and other trainers have recorded."""
        for record in self.book.changes():
            self.search.apply(record)

    def _fresh(self) -> LanePack:
        """The pack with its first trial, and as many beside it as train well together."""
        params, record = self._drawn(self.waiting.pop(0))
        self.like = record.suggestion or {}
        pack = LanePack.of(self.spec, self.data, params, self.opened.stream_seed)
        events = self._begin(pack, record, params)
        if pack.running:
            width = self._width(params)
            self.refills = self._all_refills(width)
            self.catch_up()  # measuring took its time, and others have begun trials meanwhile
            events += self._fill(pack, width - 1)
        self.book.record(events)
        return pack

    def _resumed(self) -> LanePack:
        """The pack as its last checkpoint has it, or before its first step where there is none."""
        trained = {n for n, trial in self.begun.items() if trial.state.judged or trial.state in _TRAINED}
        running = [trial for trial in self.begun.values() if trial.state == TrialState.RUNNING]
        checkpoint = self.opened.checkpoint
        if checkpoint is None:
            params = self.search.recall(next(iter(self.begun.values())))
            pack = LanePack.of(self.spec, self.data, params, self.opened.stream_seed)
        else:
            pack = LanePack.resumed(checkpoint, self.data, trained)
            self.refills = min(self.refills, checkpoint.card["refills"])
        if not pack.lanes:
            pack.position = pack.since = min(
                (began for n in trained if (began := self._began(self.begun[n])) >= pack.position), default=0
            )
        self.recorded_to = max(self._position_of(trial, pack) for trial in self.begun.values())
        for lane in pack.lanes:
            lane.recorded = dict(self.begun[lane.number].rungs)
        self._rejoin(pack)
        known = {lane.number for lane in pack.running}
        self.apart += [t.number for t in running if t.number not in known and self._began(t) <= pack.position]
        return pack

    def _all_refills(self, width: int) -> int:
        return REFILLS * width if width > 1 and not self.opened.parted else 0

    def _position_of(self, trial: TrialRecord, pack: LanePack) -> int:
        """How far the stream had been trained when the last was recorded of a trial."""
        seen = max((measured.images_seen for measured in trial.rungs.values()), default=0)
        return self._began(trial) + seen // pack.stream.batch_size

    def _began(self, trial: TrialRecord) -> int:
        return cast("int", trial.start_step)

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

    def _fill(self, pack: LanePack, lanes: int) -> list[Event]:
        """Let up to so many trials join, drawn given the first one's key; the events of their start."""
        events: list[Event] = []
        for _ in range(lanes):
            reserved = self._reserved()
            if reserved is None:
                break
            params, record = self._drawn(reserved)
            events += self._begin(pack, record, params)
        return events

    def _reserved(self) -> TrialRecord | None:
        """A trial that was reserved for this pack, else one more."""
        if self.book.should_stop() is not None or self.opened.parted:
            return None
        return self.waiting.pop(0) if self.waiting else self.book.reserve(lambda n: self.search.fits(n, self.like))

    def _drawn(self, reserved: TrialRecord) -> tuple[Params, TrialRecord]:
        """A trial with its hyper-parameters: drawn now, or when it was begun before."""
        if reserved.suggestion is not None:
            return self.search.recall(reserved), reserved
        return self.search.ask(reserved.number, self.like or None, reserved.enqueued)

    def _begin(self, pack: LanePack, record: TrialRecord, params: Params) -> list[Event]:
        """Let a trial join the pack, or set it apart where its layers are of other kinds; that it started."""
        lane = self._lane(pack, record, params)
        flops, weights = self._size(params)
        started = Started(
            number=lane.number,
            params=params.model_dump(exclude_none=True),
            suggestion=record.suggestion or {},
            attrs=record.attrs,
            init_seed=lane.init_seed,
            stream_seed=lane.stream_seed,
            start_step=pack.position,
            flops=flops,
            weights=weights,
        )
        return [started, *self._join(pack, lane)]

    def _size(self, params: Params) -> tuple[int | None, int | None]:
        """FLOPs of one image and weights of a trial's network; None where it cannot be built, as joining will say."""
        try:
            layers = self.spec.layers(params)
            return flop_count(layers, self.spec.image), parameter_count(layers)
        except Exception:
            return None, None

    def _lane(self, pack: LanePack, record: TrialRecord, params: Params) -> Lane:
        init_seed = derive(self.spec.seed, SeedPurpose.INIT, record.number)
        return Lane(record.number, self.spec, params, init_seed, pack.stream.seed, recorded=dict(record.rungs))

    def _join(self, pack: LanePack, lane: Lane) -> list[Event]:
        """Let a lane join; the event of its end where its network cannot be built, which ends no other trial."""
        try:
            if pack.running and key_of(self.spec, lane.params) != key_of(self.spec, pack.running[0].params):
                self.apart.append(lane.number)
            else:
                pack.join(lane)
        except Exception as error:
            lane.end(TrialState.FAILED, _words(error))
            return [_finished(lane)]
        return []

    def _rejoin(self, pack: LanePack) -> bool:
        """Let join what did so at this position before; whether there was any."""
        here = [t for t in self.begun.values() if self._began(t) == pack.position]
        known = {lane.number for lane in pack.running}
        for trial in here:
            if trial.number not in known and (trial.state == TrialState.RUNNING or trial.rungs):
                ended = self._join(pack, self._lane(pack, trial, self.search.recall(trial)))
                if ended:
                    self.book.record(ended)
        return bool(here)

    def _train(self, pack: LanePack) -> None:
        """Train a pack to its end, whatever ends it."""
        for rungs in self._rungs(pack):
            if rungs:
                self._judge(rungs)
                self._refill(pack, sum(not lane.running for lane, _ in rungs))
            self._cut(pack)
            if self.book.should_stop() is not None:
                break
            if self._due():
                self._keep(pack)
        if self.book.should_stop() == Stop.RELEASED:
            if self.error is None:  # else a step may be half taken: what was kept before stands
                self._keep(pack)
        else:
            self._end(pack.running)

    def _rungs(self, pack: LanePack) -> Iterator[Rungs]:
        """What the pack yields; an error of any kind ends it and is kept."""
        try:
            yield from pack.run(self._interrupted(pack))
        except Exception as error:
            self.error = error

    def _interrupted(self, pack: LanePack) -> Callable[[], bool]:
        book = self.book

        def asked() -> bool:
            if book.should_stop() is not None or self._due():
                return True
            cancelled = book.cancelled()
            return bool(cancelled) and any(
                lane.number in cancelled for lane in pack.lanes
            )  # of 128 lanes hardly ever one

        return asked

    def _cut(self, pack: LanePack) -> None:
        """End the lanes that somebody cancelled, which is on record already."""
        for lane in pack.running:
            if lane.number in self.book.cancelled():
                lane.end(TrialState.CANCELLED, "cancelled")

    def _due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return monotonic() - self.saved > max(self.book.checkpoint_seconds, self.cost / CHECKPOINT_SHARE)

    def _keep(self, pack: LanePack) -> None:
        started = monotonic()
        checkpoint = pack.checkpoint()
        self.book.keep(Checkpoint(checkpoint.weights, checkpoint.card | {"refills": self.refills}))
        self.saved = monotonic()
        self.cost = self.saved - started

    def _end(self, left: list[Lane]) -> None:
        """End the lanes that training left running: each goes on alone where an error ended it for several."""
        if self.error is not None and len(left) > 1:
            self.apart += [lane.number for lane in left]
            return
        for lane in left:
            if self.error is not None:
                lane.end(TrialState.FAILED, _words(self.error))
            else:
                _stop(lane, self.book.should_stop())
        if left:
            self.book.record([_finished(lane) for lane in left])

    def _judge(self, rungs: Rungs) -> None:
        """Record what was measured, and end the lanes that the pruner would end."""
        new = [(lane, measured) for lane, measured in rungs if measured.step not in lane.recorded]
        for lane, measured in rungs:
            if measured.step in lane.recorded:
                self._end_as_recorded(lane, measured)
        self.catch_up()
        values = {lane.number: (measured.step, objective(self.spec, measured)) for lane, measured in new}
        pruned = self.search.report({n: (step, value) for n, (step, value) in values.items() if value is not None})
        events: list[Event] = []
        for lane, measured in new:
            if lane.number in pruned and lane.running:
                lane.end(TrialState.PRUNED, f"pruned after epoch {measured.epoch:g}")
            events.append(Measured(lane.number, measured, self.search.attrs(lane.number)))
            if not lane.running:
                events.append(_finished(lane))
        if events:
            self.book.record(events)

    def _end_as_recorded(self, lane: Lane, measured: RungResult) -> None:
        trial = self.begun[lane.number]
        if lane.running and trial.state != TrialState.RUNNING and measured.step == max(trial.rungs):
            lane.end(trial.state, trial.reason)

    def _refill(self, pack: LanePack, ended: int) -> None:
        """Begin as many trials as have ended, while refills last; again those that were begun here before."""
        if ended and self.refills:
            if not self._rejoin(pack) and pack.position >= self.recorded_to:
                self.catch_up()
                self.book.record(self._fill(pack, min(ended, self.refills)))
            self.refills = max(0, self.refills - ended)


_TRAINED = (TrialState.RUNNING, TrialState.DIVERGED)  # beside those that were judged: what took part in training


def _stop(lane: Lane, stop: Stop | None) -> None:
    """End a lane that was cut between two epochs."""
    if stop == Stop.SECONDS and lane.best is not None:
        lane.end(TrialState.STOPPED_EARLY, OUT_OF_TIME)
    elif stop == Stop.SECONDS:
        lane.end(TrialState.CANCELLED, f"{OUT_OF_TIME} before the first epoch ended")
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
        "fresh": lane.fresh,
    }
    return Checkpoint({name: tensor.numpy() for name, tensor in lane.best_weights.items()}, card)
