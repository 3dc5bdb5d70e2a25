"""The store of artifacts: objects under keys, in a folder or wherever else the scheme of a URL says.

A key is written once and never changes its content, so that whatever points to an object may be written after it.
"""

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Protocol

import structlog

from ml.artifacts import Saved, write
from ml.errors import CheckpointError
from ml.registry import Registry
from worker.errors import BadKey, StorageAway, StorageFull
from worker.settings import Settings

NAME = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,255}"  # of a file or folder, but for those that lead elsewhere
log = structlog.get_logger()

KEY = re.compile(rf"{NAME}(?:/{NAME})*")
PIECE = 1 << 18  # bytes of an object in memory at a time, where it is read in pieces
UPLOADED = "datasets/"  # begins the keys of data sets, which no training makes again
MAX_KEY = 512  # characters; S3 takes 1024 bytes, the prefix included
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


class Store(Protocol):
    """Objects under keys, each of them whole or not there.

    Any call raises StorageAway where the storage cannot be reached or refuses, and BadKey where a key is none.
    """

    def write(self, key: str, content: bytes) -> Saved:
        """Store an object; it survives a crash once this returns, and nothing is ever seen of one that fails.

        To write the same again is no error: the first answer may have been lost. BadKey where the key holds something
        else, StorageFull where there is no room.
        """
        ...

    def read(self, key: str, sha256: str) -> bytes:
        """The content of an object; CheckpointError where it is missing or not what was written."""
        ...

    def pieces(self, key: str, sha256: str) -> Iterator[bytes]:
        """The content of an object as `read` gives it, without ever holding more than a piece of it.

        It is read twice, once for its hash: CheckpointError comes before the first piece.
        """
        ...

    def remove(self, key: str) -> None:
        """Remove an object; no error where it is gone already."""
        ...

    def keys(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        """The keys that begin with these characters, and when each was written, in seconds since 1970.

        What a crash left of a write is listed as well, under a name that begins with a dot, so that it can be removed.
        """
        ...


stores: Registry[Callable[[str], Store]] = Registry("scheme for CHIFFRE_ARTIFACTS")


def store_of(config: Settings) -> Store:
    """The store that CHIFFRE_ARTIFACTS names; UnknownName where its scheme is not one of ours."""
    scheme, found, place = config.artifact_store.partition("://")
    return stores[scheme.lower()](place) if found else FolderStore(Path(scheme))


def drop_files(store: Store, keys: Iterable[str]) -> None:
    """Remove objects that no row points to; what cannot be removed now is found by the collector later."""
    for key in keys:
        try:
            store.remove(key)
        except StorageAway as error:
            log.warning("an object that nobody needs could not be removed", key=key, error=str(error))


def is_key(text: str) -> bool:
    """Whether this can be a key: a relative path of plain names, which cannot lead out of the store."""
    return len(text) <= MAX_KEY and KEY.fullmatch(text) is not None


def check_key(key: str) -> str:
    """The key itself; BadKey where it is none."""
    if not is_key(key):
        raise BadKey(f"{key[:100]!r} is no key: names of A-Z, a-z, 0-9, '.', '_' and '-', with '/' between them")
    return key


def check_prefix(prefix: str) -> str:
    """The beginning of a key; BadKey where no key can begin like this."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def verified(key: str, content: bytes, sha256: str) -> bytes:
    """The content; CheckpointError where it is not what was written."""
    _compare(key, hashlib.sha256(content).hexdigest(), sha256)
    return content


def verified_pieces(key: str, pieces: Callable[[], Iterator[bytes]], sha256: str) -> Iterator[bytes]:
    """What `pieces` gives, called again once it gave what was written; CheckpointError where it did not."""
    digest = hashlib.sha256()
    for piece in pieces():
        digest.update(piece)
    _compare(key, digest.hexdigest(), sha256)
    return pieces()


def _compare(key: str, found: str, sha256: str) -> None:
    if found != sha256:
        raise CheckpointError(f"{key} is damaged: its SHA-256 is not {sha256}; {_remedy(key)}")


def missing(key: str) -> CheckpointError:
    """What to raise for an object that is not there."""
    return CheckpointError(f"{key} is missing; {_remedy(key)}")


def _remedy(key: str) -> str:
    """What to do about an object that is lost."""
    return f"restore it or {'upload the data set' if key.startswith(UPLOADED) else 'train'} again"


class FolderStore:
    """A folder, of this machine or one that several share."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, key: str, content: bytes) -> Saved:
        path = self._path(key)
        with _told(key):
            if path.is_file() and path.read_bytes() != content:
                raise BadKey(f"{key} holds something else already; report this")
            return write(path, content)

    def read(self, key: str, sha256: str) -> bytes:
        with self._found(key) as path:
            content = path.read_bytes()
        return verified(key, content, sha256)

    def pieces(self, key: str, sha256: str) -> Iterator[bytes]:
        return verified_pieces(key, partial(self._pieces, key), sha256)

    def remove(self, key: str) -> None:
        path = self._path(key)
        with _told(key), suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()

    def keys(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        start = self.folder / check_prefix(prefix).rpartition("/")[0]
        with _told(f"{start}"):
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
        """Where an object lies; CheckpointError where there turns out to be none."""
        path = self._path(key)
        with _told(key):
            try:
                yield path
            except ABSENT as error:
                raise missing(key) from error

    def _path(self, key: str) -> Path:
        return self.folder / check_key(key)


@stores.register("file")
def _folder(place: str) -> Store:
    return FolderStore(Path(place))


@stores.register("s3")
def _s3(place: str) -> Store:
    """Imported here alone: to load boto3 takes a third of a second and 30 MiB, and it need not be installed."""
    try:
        from worker.s3 import S3Store
    except ModuleNotFoundError as error:
        raise StorageAway(f"S3 needs {error.name}; pip install 'chiffre[s3]' brings it") from error
    return S3Store.at(place)


@contextmanager
def _told(key: str) -> Iterator[None]:
    """Let an error of the system be told as one of ours."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(f"there is no room for {key} ({error.strerror}); make some, or move it all") from error
        raise StorageAway(
            f"the folder of artifacts refuses {key} ({error.strerror}); is it mounted, and open to this user?"
        ) from error


def _files(folder: Path) -> Iterator[Path]:
    """Every file under a folder; those that vanish meanwhile may be among them."""
    for parent, _, names in os.walk(folder, onerror=_raise_but_absent):
        yield from (Path(parent, name) for name in names)


def _raise_but_absent(error: OSError) -> None:
    if not isinstance(error, ABSENT):
        raise error


def _modified(path: Path) -> float | None:
    """When a file was written; None where it is gone or no plain file."""
    try:
        status = path.lstat()
    except ABSENT:
        return None
    return status.st_mtime if S_ISREG(status.st_mode) else None
