"""Checkpoints: safetensors files with a JSON card in the header, written atomically and verified when read."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ml.errors import CheckpointError
from ml.records import Checkpoint

CARD = "chiffre"  # the key in the header; safetensors keeps metadata as text by key


@dataclass(frozen=True)
class Saved:
    """The hash and size of a file that is safely on disk."""

    sha256: str
    size: int  # bytes


def write(path: Path, content: bytes) -> Saved:
    """Write a file completely or not at all; once this returns, the file survives a crash of the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            os.fchmod(file.fileno(), 0o644)  # the API may run as another user; the folder's mode protects the file
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
    _fsync(path.parent)
    return Saved(hashlib.sha256(content).hexdigest(), len(content))


def read(path: Path, sha256: str) -> bytes:
    """Return the content of a file.

    Raises:
        CheckpointError: if the file is missing or its SHA-256 differs.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read ({error.strerror}); restore it or train again") from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise CheckpointError(f"{path.name} is damaged: its SHA-256 is not {sha256}; restore it or train again")
    return content


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> Saved:
    """Write a checkpoint to a file."""
    return write(path, checkpoint_bytes(checkpoint))


def load_checkpoint(path: Path, sha256: str | None = None) -> Checkpoint:
    """Read a checkpoint, and compare its hash with `sha256` if one is given.

    Raises:
        CheckpointError: if the file is missing, damaged or not a checkpoint of Chiffre.
    """
    try:
        content = path.read_bytes() if sha256 is None else read(path, sha256)
    except OSError as error:
        raise CheckpointError(f"{path.name} is not a checkpoint of Chiffre ({error})") from error
    return checkpoint_of(content, path.name)


def checkpoint_bytes(checkpoint: Checkpoint) -> bytes:
    """Return the content of the file that holds a checkpoint."""
    weights = {name: np.asarray(array, order="C") for name, array in checkpoint.weights.items()}
    return save(weights, metadata={CARD: json.dumps(checkpoint.card, sort_keys=True, ensure_ascii=False)})


def checkpoint_of(content: bytes, name: str) -> Checkpoint:
    """Return the checkpoint in a file's content; `name` is the file's name for the error message.

    Raises:
        CheckpointError: if the content is not a checkpoint of Chiffre.
    """
    try:
        # The file holds the header's length in bytes (64 bits, little-endian), the header as JSON, then the tensors:
        # https://github.com/huggingface/safetensors#format
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        card = json.loads(header["__metadata__"][CARD])
        if not isinstance(card, dict):
            raise TypeError("its card is not a JSON object")
        return Checkpoint(load(content), card)
    except (SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} is not a checkpoint of Chiffre ({error})") from error


def _fsync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
