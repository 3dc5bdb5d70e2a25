"""Files that are written before the rows that name them."""

from types import TracebackType
from typing import Self

from ml.artifacts import Saved
from ml.errors import ChiffreError
from worker.artifacts.store import Store, drop_files

Stored = tuple[str, Saved]  # a file's key in the store, and what was written there


class NewFiles:
    """Files written in a `with` block that also writes their rows; removed if the rows are refused.

    Only a ChiffreError counts as a refusal. After any other error, such as a lost connection during a commit, the rows
    may exist. The janitor then removes the files if no row names them.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._keys: list[str] = []

    def write(self, key: str, content: bytes) -> Stored:
        """Write a new file; return its key with its hash and size."""
        saved = self.store.write(key, content)
        self._keys.append(key)
        return key, saved

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, ChiffreError):
            drop_files(self.store, self._keys)
