"""The errors of the science; nothing here knows about HTTP.

ChiffreError
├── SpecError            a specification that cannot run, with one problem per field
├── UnknownName          a name that is not in the registry
├── DataError            a missing or damaged data file
├── CheckpointError      a missing or damaged checkpoint
└── LanesError           lanes that cannot train as one module
"""

from collections.abc import Iterable
from dataclasses import dataclass


class ChiffreError(Exception):
    """The base of all errors that Chiffre raises; the text says what is wrong and what to do next."""


@dataclass(frozen=True)
class Problem:
    """One mistake in an input."""

    path: tuple[str | int, ...]  # keys from the root of the input
    detail: str  # what is wrong, and what is allowed


class SpecError(ChiffreError):
    """A specification that cannot run."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{'.'.join(map(str, p.path))}: {p.detail}" for p in self.problems))


class UnknownName(ChiffreError):
    """A name that is not in the registry."""

    def __init__(self, noun: str, known: Iterable[str]) -> None:
        # The name itself is left out: an answer never echoes its input.
        super().__init__(f"there is no such {noun}; choose one of: {', '.join(known)}")


class DataError(ChiffreError):
    """A missing or damaged data file."""


class CheckpointError(ChiffreError):
    """A missing or damaged checkpoint."""


class LanesError(ChiffreError):
    """Lanes that cannot train as one module."""
