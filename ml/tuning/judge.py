"""The judgement of lanes that reached a rung: it records their measurements and ends those that the pruner rejects."""

from ml.records import Event, Measured, RungResult, TrialState
from ml.training.lane import Lane, objective
from ml.training.pack import Rungs
from ml.tuning.context import TuningContext
from ml.tuning.history import History
from ml.tuning.outcome import finished


class Judge:
    """The judge of one pack's lanes."""

    def __init__(self, context: TuningContext, history: History) -> None:
        self.context = context
        self.history = history

    def judge(self, rungs: Rungs) -> None:
        """Record new measurements and end the lanes that the pruner would end.

        Measurements that are on record already are not recorded again; their lanes end at the recorded ends.
        """
        new = [(lane, measured) for lane, measured in rungs if measured.step not in lane.recorded]
        for lane, measured in rungs:
            if measured.step in lane.recorded:
                self.history.end_as_recorded(lane, measured)
        self.context.catch_up()
        pruned = self._pruned(new)
        events = [event for lane, measured in new for event in self._events(lane, measured, lane.number in pruned)]
        if events:
            self.context.book.record(events)

    def _pruned(self, rungs: Rungs) -> set[int]:
        """Return the numbers of the trials that the pruner would end at these rungs."""
        values = {lane.number: (measured.step, objective(self.context.spec, measured)) for lane, measured in rungs}
        return self.context.search.report(
            {n: (step, value) for n, (step, value) in values.items() if value is not None}
        )

    def _events(self, lane: Lane, measured: RungResult, pruned: bool) -> list[Event]:
        """Return the events of a lane at its rung; end the lane if it is pruned."""
        if pruned and lane.running:
            lane.end(TrialState.PRUNED, f"pruned after epoch {measured.epoch:g}")
        events: list[Event] = [Measured(lane.number, measured, self.context.search.attrs(lane.number))]
        return events if lane.running else [*events, finished(lane)]
