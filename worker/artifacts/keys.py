"""The keys of artifacts, and the check that an object is what was written under one."""

import hashlib
import re
from collections.abc import Callable, Iterator

from ml.errors import CheckpointError
from worker.errors import BadKey

NAME = r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._-]{1,255}"  # of a file or folder, but for those that lead elsewhere
KEY = re.compile(rf"{NAME}(?:/{NAME})*")
PIECE = 1 << 18  # bytes of an object in memory at a time, where it is read in pieces
UPLOADED = "datasets/"  # begins the keys of data sets, which no training makes again
MAX_KEY = 512  # characters; S3 takes 1024 bytes, the prefix included


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
