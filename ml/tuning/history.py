"""The history of a pack: what was recorded of its trials before it was opened."""

from dataclasses import dataclass
from typing import Any, cast

from ml.records import PackRecord, RungResult, TrialRecord, TrialState
from ml.training.lane import Lane
from ml.training.pack import LanePack

_TRAINED = (TrialState.RUNNING, TrialState.DIVERGED)  # besides judged trials, these took part in training


@dataclass(frozen=True)
class History:
    """The trials of a pack that had begun before it was opened.

    Their records stand. A resumed pack trains them again in silence up to the last record: they join and end at the
    recorded positions, so that the same lanes take the same steps together.
    """

    trials: dict[int, TrialRecord]  # by number
    running: tuple[int, ...]  # the numbers of those that had not ended

    @classmethod
    def of(cls, opened: PackRecord) -> "History":
        """Return the history of an opened pack; empty if none of its trials has begun."""
        trials = {trial.number: trial for trial in opened.trials if trial.start_step is not None}
        return cls(trials, tuple(n for n, trial in trials.items() if trial.state == TrialState.RUNNING))

    @property
    def suggestion(self) -> dict[str, Any]:
        """The suggestion of the first trial, whose key all others share; empty if there is none."""
        return next((trial.suggestion for trial in self.trials.values() if trial.suggestion), {})

    @property
    def trained(self) -> set[int]:
        """The numbers of the trials that trained or still train."""
        return {n for n, trial in self.trials.items() if trial.state.judged or trial.state in _TRAINED}

    def next_start(self, position: int) -> int:
        """Return the first step at or after `position` at which a trained trial began; 0 if there is none."""
        starts = (start_of(self.trials[number]) for number in self.trained)
        return min((start for start in starts if start >= position), default=0)

    def begun_at(self, position: int) -> list[TrialRecord]:
        """Return the trials that began at this step of the stream."""
        return [trial for trial in self.trials.values() if start_of(trial) == position]

    def recorded_to(self, batch_size: int) -> int:
        """Return the step of the stream up to which something was recorded; 0 for an empty history."""
        return max((_recorded_to(trial, batch_size) for trial in self.trials.values()), default=0)

    def hand_records_to(self, pack: LanePack) -> None:
        """Give each lane of a resumed pack its position, and its measurements, so that they are not taken anew."""
        for lane in pack.lanes:
            trial = self.trials[lane.number]
            lane.place, lane.recorded = trial.lane, dict(trial.rungs)

    def end_as_recorded(self, lane: Lane, measured: RungResult) -> None:
        """End a lane at its last recorded measurement if its trial had ended there."""
        trial = self.trials[lane.number]
        if lane.running and trial.state != TrialState.RUNNING and measured.step == max(trial.rungs):
            lane.end(trial.state, trial.reason)


def start_of(trial: TrialRecord) -> int:
    """Return the step of its pack's stream at which a trial began."""
    return cast("int", trial.start_step)


def _recorded_to(trial: TrialRecord, batch_size: int) -> int:
    """Return the step of the stream at which a trial was last recorded."""
    seen = max((measured.images_seen for measured in trial.rungs.values()), default=0)
    return start_of(trial) + seen // batch_size
