"""The store of artifacts: objects under keys, in a folder or in S3, as the scheme of a URL says.

The content under a key is written once and never changes. A caller writes the object first and then the row that
points to it.
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
    """Objects under keys; each object is either complete or absent.

    Every call raises StorageAway if the storage cannot be reached or refuses, and BadKey if a key is not valid.
    """

    def write(self, key: str, content: bytes) -> Saved:
        """Store an object so that it survives a crash once this returns; a failed write leaves nothing visible.

        Writing the same content again succeeds, because the answer to the first attempt may have been lost.

        Raises:
            BadKey: if the key already holds different content.
            StorageFull: if there is no room.
        """
        ...

    def read(self, key: str, sha256: str) -> bytes:
        """Return the content of an object.

        Raises:
            CheckpointError: if the object is missing or its hash differs.
        """
        ...

    def pieces(self, key: str, sha256: str) -> Iterator[bytes]:
        """Yield the content of an object in pieces, so that only one piece is in memory at a time.

        The object is read twice: the first pass checks the hash before any piece is yielded.

        Raises:
            CheckpointError: if the object is missing or its hash differs.
        """
        ...

    def remove(self, key: str) -> None:
        """Remove an object; do nothing if it does not exist."""
        ...

    def keys(self, prefix: str = "") -> Iterator[tuple[str, float]]:
        """Yield each key that starts with `prefix`, with the time it was written in seconds since 1970.

        Temporary files that a crash left are included, so that they can be removed; their names start with a dot.
        """
        ...


stores: Registry[Callable[[str], Store]] = Registry("scheme for CHIFFRE_ARTIFACTS")


def store_of(config: Settings) -> Store:
    """Return the store that CHIFFRE_ARTIFACTS names.

    Raises:
        UnknownName: if no store is registered for its scheme.
    """
    scheme, found, place = config.artifact_store.partition("://")
    return stores[scheme.lower()](place) if found else FolderStore(Path(scheme))


def drop_files(store: Store, keys: Iterable[str]) -> None:
    """Remove objects that no row points to; the janitor later finds those that cannot be removed now."""
    for key in keys:
        try:
            store.remove(key)
        except StorageAway as error:
            log.warning("could not remove an unused artifact", key=key, error=str(error))


@stores.register("file")
def _folder(place: str) -> Store:
    return FolderStore(Path(place))


@stores.register("s3")
def _s3(place: str) -> Store:
    """Return a store in S3.

    The import is inside this function: loading boto3 takes a third of a second and 30 MiB, and boto3 is optional.
    """
    try:
        from worker.artifacts.s3 import S3Store
    except ModuleNotFoundError as error:
        raise StorageAway(
            f"artifacts in S3 need the package {error.name}; install it with: pip install 'chiffre[s3]'"
        ) from error
    return S3Store.at(place)
