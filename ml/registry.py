"""A named dict with a decorator: every plug-in registers beside its definition."""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from ml.errors import UnknownName

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """What of one kind (`noun`) can be chosen by name."""

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Add the decorated object under `name`; ValueError if the name is taken."""

        def add(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.noun} {name!r} is registered twice")
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownName(self.noun, name, self._entries) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
