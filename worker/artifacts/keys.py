"""The keys of artifacts, and the check that an object still has the content that was written."""

import hashlib
import re
from collections.abc import Callable, Iterator

from ml.errors import CheckpointError
from worker.errors import BadKey

NAME = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,255}"  # of a file or folder; "." and ".." could leave the store
KEY = re.compile(rf"{NAME}(?:/{NAME})*")
PIECE = 1 << 18  # bytes in memory at a time when an object is read in pieces
DATASET_PREFIX = "datasets/"  # begins the keys of uploaded data sets, which no training can restore
MAX_KEY = 512  # characters; S3 allows 1024 bytes, which include the prefix


def is_key(text: str) -> bool:
    """Return whether a text is a valid key: a relative path of plain names that cannot leave the store."""
    return len(text) <= MAX_KEY and KEY.fullmatch(text) is not None


def check_key(key: str) -> str:
    """Return the key.

    Raises:
        BadKey: if it is not a valid key.
    """
    if not is_key(key):
        raise BadKey(
            f"{key[:100]!r} is not a valid artifact key; use names of A-Z, a-z, 0-9, '.', '_' and '-', "
            "with '/' between them"
        )
    return key


def check_prefix(prefix: str) -> str:
    """Return the first characters of a key.

    Raises:
        BadKey: if no valid key can start with them.
    """
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix


def verified(key: str, content: bytes, sha256: str) -> bytes:
    """Return the content of an object.

    Raises:
        CheckpointError: if its hash differs from `sha256`.
    """
    _compare(key, hashlib.sha256(content).hexdigest(), sha256)
    return content


def verified_pieces(key: str, pieces: Callable[[], Iterator[bytes]], sha256: str) -> Iterator[bytes]:
    """Return an object's content in pieces, after a first pass over all of them that checks the hash.

    Args:
        key: The object's key, for the error message.
        pieces: Starts to read the object; it is called twice.
        sha256: The expected hash.

    Raises:
        CheckpointError: if the hash differs.
    """
    digest = hashlib.sha256()
    for piece in pieces():
        digest.update(piece)
    _compare(key, digest.hexdigest(), sha256)
    return pieces()


def _compare(key: str, found: str, sha256: str) -> None:
    if found != sha256:
        raise CheckpointError(f"{key} is damaged: its SHA-256 is not {sha256}; {_remedy(key)}")


def missing(key: str) -> CheckpointError:
    """Return the error to raise for an object that does not exist."""
    return CheckpointError(f"{key} is missing; {_remedy(key)}")


def _remedy(key: str) -> str:
    """Return the advice for a lost object."""
    return f"restore it or {'upload the data set' if key.startswith(DATASET_PREFIX) else 'train'} again"
