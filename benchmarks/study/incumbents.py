"""The incumbents of a search: the best trial by what a side knows at each moment, and how far it had come."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any


@dataclass(frozen=True)
class Incumbent:
    """A trial as it stood when no other was better."""

    at: float  # seconds of the search
    trial: int
    params: dict[str, Any]  # all hyper-parameters
    step: int  # tenths of an epoch that it had trained
    value: float  # the validation accuracy that the side measured, 0..1


@dataclass
class Log:
    """The incumbents of a search in the order of time, with the trials that were seen."""

    incumbents: list[Incumbent] = field(default_factory=list)
    trials: set[int] = field(default_factory=set)

    def see(self, at: float, trial: int, params: Callable[[], dict[str, Any]], step: int, value: float | None) -> bool:
        """Note a measurement, and return whether it is a new incumbent; `params` is called only then."""
        self.trials.add(trial)
        if value is None or (self.incumbents and value <= self.incumbents[-1].value):
            return False
        self.incumbents.append(Incumbent(at, trial, params(), step, value))
        return True


class Clock:
    """The seconds of a search, which stand still while the search does."""

    def __init__(self) -> None:
        self._started = perf_counter()

    def now(self) -> float:
        """Return the seconds that have counted so far."""
        return perf_counter() - self._started

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Do not count the time until the end of the block."""
        at = perf_counter()
        yield
        self._started += perf_counter() - at
