"""The store of artifacts in a folder."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISREG

from ml.artifacts import Saved, write
from worker.artifacts.keys import PIECE, check_key, check_prefix, is_key, missing, verified, verified_pieces
from worker.errors import BadKey, StorageAway, StorageFull

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class FolderStore:
    """Objects as files of a folder, either local or shared by several machines."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, key: str, content: bytes) -> Saved:
        path = self._path(key)
        with _as_storage_errors(key):
            if path.is_file() and path.read_bytes() != content:
                raise BadKey(f"{key} already holds different content; please report this as a bug")
            return write(path, content)

    def read(self, key: str, sha256: str) -> bytes:
        with self._found(key) as path:
            content = path.read_bytes()
        return verified(key, content, sha256)

    def pieces(self, key: str, sha256: str) -> Iterator[bytes]:
        return verified_pieces(key, partial(self._pieces, key), sha256)

    def remove(self, key: str) -> None:
        path = self._path(key)
        with _as_storage_errors(key), suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()

    def keys(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        start = self.folder / check_prefix(prefix).rpartition("/")[0]
        with _as_storage_errors(f"{start}"):
            for path in _files(start):
                key = path.relative_to(self.folder).as_posix()
                modified = _modified(path)
                if key.startswith(prefix) and is_key(key) and modified is not None:
                    yield key, modified

    def _pieces(self, key: str) -> Iterator[bytes]:
        with self._found(key) as path, path.open("rb") as file:
            while piece := file.read(PIECE):
                yield piece

    @contextmanager
    def _found(self, key: str) -> Iterator[Path]:
        """Yield the path of an object, and raise CheckpointError if reading it finds no file."""
        path = self._path(key)
        with _as_storage_errors(key):
            try:
                yield path
            except ABSENT as error:
                raise missing(key) from error

    def _path(self, key: str) -> Path:
        return self.folder / check_key(key)


@contextmanager
def _as_storage_errors(key: str) -> Iterator[None]:
    """Turn an OSError into StorageFull or StorageAway."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(
                f"there is no room for {key} ({error.strerror}); free some space or move the artifacts"
            ) from error
        raise StorageAway(
            f"the artifacts folder refuses {key} ({error.strerror}); "
            "check that it is mounted and that this user may read and write it"
        ) from error


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file under a folder; some may have been deleted meanwhile."""
    for parent, _, names in os.walk(folder, onerror=_raise_unless_absent):
        yield from (Path(parent, name) for name in names)


def _raise_unless_absent(error: OSError) -> None:
    if not isinstance(error, ABSENT):
        raise error


def _modified(path: Path) -> float | None:
    """Return when a file was written, in seconds since 1970; None if it is gone or not a regular file."""
    try:
        status = path.lstat()
    except ABSENT:
        return None
    return status.st_mtime if S_ISREG(status.st_mode) else None
