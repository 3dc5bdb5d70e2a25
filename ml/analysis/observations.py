"""A job's trials as columns of a table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from ml.analysis.design import INDEPENDENT, Design
from ml.parameters.space import Fixed, List, SearchSpace
from ml.records import TrialState

ENDED = (TrialState.COMPLETED, TrialState.STOPPED_EARLY)
LEARNED = "the sampler chose values by earlier results, so the trials are not independent"
CHOSEN = "people chose the values of some trials, so the trials are not independent"
OUTCOMES = ("val_loss", "val_accuracy", "seconds", "epochs_run")

Value = float | str | None


@dataclass(frozen=True)
class Observation:
    """One trial: its hyper-parameters and its results."""

    number: int
    state: TrialState
    params: dict[str, Any]  # all hyper-parameters, as trained
    val_loss: float | None = None  # of its best epoch, like val_accuracy
    val_accuracy: float | None = None  # 0..1
    seconds: float = 0.0  # the trial's share of its pack's time
    epochs_run: float = 0.0
    flops: int | None = None  # of one image's forward pass
    weights: int | None = None  # their number
    latency_seconds: float | None = None  # of one image on one core; only known for published trials
    began: float | None = None  # seconds since 1970, like ended
    ended: float | None = None
    out_of_time: bool = False  # True if the job's time limit ended it
    pack: int | None = None  # a number of the pack that it was drawn in; None if it trained alone
    chosen: bool = False  # True if a person chose some of its hyper-parameters

    @property
    def ran_to_end(self) -> bool:
        """True if neither the pruner, the job's time limit nor an error ended the trial."""
        return self.state in ENDED and not self.out_of_time


@dataclass(frozen=True)
class Column:
    """The values of one parameter by trial; None for a trial without it."""

    name: str
    values: tuple[Value, ...]

    @cached_property
    def distinct(self) -> list[Any]:
        """The values that occur, sorted."""
        return sorted({value for value in self.values if value is not None})

    @property
    def numeric(self) -> bool:
        """True if the values are numbers."""
        return not any(isinstance(value, str) for value in self.distinct)

    def numbers(self) -> np.ndarray:
        """Return the values, float64 [trials], NaN for a trial without one."""
        return np.array([np.nan if value is None else value for value in self.values], np.float64)

    def indicators(self) -> dict[str, np.ndarray]:
        """Return numeric variables: the column itself, or one 0/1 variable for each name except the first."""
        if self.numeric:
            return {self.name: self.numbers()}
        own, unknown = np.array(self.values, object), np.array([value is None for value in self.values])
        return {f"{self.name}={name}": np.where(unknown, np.nan, own == name) for name in self.distinct[1:]}


@dataclass(frozen=True)
class Observations:
    """The trials of a job that ran to their end, by trial number."""

    trials: tuple[Observation, ...]
    columns: tuple[Column, ...]
    design: Design = INDEPENDENT

    @classmethod
    def of(cls, space: SearchSpace, trials: Iterable[Observation], design: Design = INDEPENDENT) -> "Observations":
        """Select the trials that ran to their end, with a column for each dimension that is not fixed."""
        ended = sorted((trial for trial in trials if trial.ran_to_end), key=lambda trial: trial.number)
        columns = [
            column
            for name, dimension in space.items()
            if not isinstance(dimension, Fixed)
            for column in _columns(name, isinstance(dimension, List), [trial.params.get(name) for trial in ended])
        ]
        return cls(tuple(ended), tuple(columns), design)

    def outcome(self, name: str) -> np.ndarray:
        """Return an outcome of each trial, float64 [trials], NaN if it is unknown."""
        found = [getattr(trial, name) for trial in self.trials]
        return np.array([np.nan if value is None else value for value in found], np.float64)

    @property
    def dependence(self) -> str | None:
        """The reason why the draws are not independent observations, so that no p-value holds; None if they are."""
        if self.design.learned:
            return LEARNED
        if any(trial.chosen for trial in self.trials):
            return CHOSEN
        return None

    @cached_property
    def packs(self) -> np.ndarray:
        """A number for the pack of each trial, int64 [trials]; a trial without one is a pack of its own."""
        ids = [("pack", one.pack) if one.pack is not None else ("trial", one.number) for one in self.trials]
        numbers = {key: place for place, key in enumerate(dict.fromkeys(ids))}
        return np.array([numbers[key] for key in ids], np.int64)

    def per_pack(self, variable: str) -> bool:
        """Return whether a variable is drawn once for several trials, which then are one observation."""
        name, packs = variable.partition("=")[0], self.packs.tolist()
        if name not in self.design.per_pack or len(packs) == len(set(packs)):
            return False
        values = next((column.values for column in self.columns if column.name == name), tuple(packs))
        return len(set(zip(packs, values, strict=True))) == len(set(packs))

    @cached_property
    def variables(self) -> dict[str, np.ndarray]:
        """All numeric variables: the parameters, then the outcomes."""
        parameters = {name: numbers for column in self.columns for name, numbers in column.indicators().items()}
        return parameters | {name: self.outcome(name) for name in OUTCOMES}


def _columns(name: str, is_list: bool, values: Sequence[Any]) -> list[Column]:
    """Return the columns of one hyper-parameter; a list has its length and the mean of its items if numeric."""
    lists = [value for value in values if isinstance(value, list)]
    if not is_list and not lists:
        return [Column(name, tuple(_plain(value) for value in values))]
    columns = [Column(f"{name}.length", tuple(float(len(v)) if isinstance(v, list) else None for v in values))]
    if all(_numeric(item) for items in lists for item in items):
        means = tuple(sum(v) / len(v) if isinstance(v, list) and v else None for v in values)
        columns.append(Column(f"{name}.mean", means))
    return columns


def _plain(value: Any) -> Value:
    if value is None or _numeric(value):
        return None if value is None else float(value)
    return str(value)


def _numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
