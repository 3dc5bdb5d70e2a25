"""A dict with a decorator: every plug-in registers next to its definition."""

from collections.abc import Callable
from typing import TypeVar

from ml.errors import UnknownName

T = TypeVar("T")


class Registry(dict[str, T]):
    """Entries of one kind, called `noun` in messages, by name; looking up a missing name raises UnknownName."""

    def __init__(self, noun: str) -> None:
        super().__init__()
        self.noun = noun

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that adds an object under `name`.

        Raises:
            ValueError: from the decorator, if the name is taken.
        """

        def add(entry: T) -> T:
            if name in self:
                raise ValueError(f"{self.noun} {name!r} is registered twice")
            self[name] = entry
            return entry

        return add

    def __missing__(self, name: str) -> T:
        raise UnknownName(self.noun, self)
