"""A named dict with a decorator: every plug-in registers beside its definition."""

from collections.abc import Callable
from typing import TypeVar

from ml.errors import UnknownName

T = TypeVar("T")


class Registry(dict[str, T]):
    """What of one kind (`noun`) can be chosen by name; UnknownName where a name is not there."""

    def __init__(self, noun: str) -> None:
        super().__init__()
        self.noun = noun

    def register(self, name: str) -> Callable[[T], T]:
        """Add the decorated object under `name`; ValueError if the name is taken."""

        def add(entry: T) -> T:
            if name in self:
                raise ValueError(f"{self.noun} {name!r} is registered twice")
            self[name] = entry
            return entry

        return add

    def __missing__(self, name: str) -> T:
        raise UnknownName(self.noun, self)
