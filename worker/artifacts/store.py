"""The store of artifacts: objects under keys, in a folder or wherever else the scheme of a URL says.

A key is written once and never changes its content, so that whatever points to an object may be written after it.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Protocol

import structlog

from ml.artifacts import Saved
from ml.registry import Registry
from worker.artifacts.folder import FolderStore
from worker.errors import StorageAway
from worker.settings import Settings

log = structlog.get_logger()


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


@stores.register("file")
def _folder(place: str) -> Store:
    return FolderStore(Path(place))


@stores.register("s3")
def _s3(place: str) -> Store:
    """Imported here alone: to load boto3 takes a third of a second and 30 MiB, and it need not be installed."""
    try:
        from worker.artifacts.s3 import S3Store
    except ModuleNotFoundError as error:
        raise StorageAway(f"S3 needs {error.name}; pip install 'chiffre[s3]' brings it") from error
    return S3Store.at(place)
