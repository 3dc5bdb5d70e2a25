"""What can go wrong in the science; nothing here knows about HTTP.

ChiffreError
├── SpecError            a specification that cannot run, with one problem a field
├── UnknownName          a name that no registry entry bears
├── DataError            a data file that is missing or damaged
├── CheckpointError      a checkpoint that is missing or damaged
└── LanesError           lanes that cannot train as one
"""

from collections.abc import Iterable
from dataclasses import dataclass


class ChiffreError(Exception):
    """Any error that Chiffre itself raises; its text says what is wrong and what to do next."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input."""

    path: tuple[str | int, ...]  # where, as keys from the root of the input
    detail: str  # what is wrong, and what is allowed


class SpecError(ChiffreError):
    """A specification that cannot run."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{'.'.join(map(str, p.path))}: {p.detail}" for p in self.problems))


class UnknownName(ChiffreError):
    """A name that the registry does not hold."""

    def __init__(self, noun: str, known: Iterable[str]) -> None:
        # Without the name: this text is answered to whoever sent it, and may be shown elsewhere.
        super().__init__(f"there is no such {noun}; choose one of: {', '.join(known)}")


class DataError(ChiffreError):
    """A data file that is missing or damaged."""


class CheckpointError(ChiffreError):
    """A checkpoint that is missing or damaged."""


class LanesError(ChiffreError):
    """Lanes that cannot train as one."""
