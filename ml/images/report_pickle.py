"""The report's data file: a gzipped `torch.save` of ((images, labels), (images, labels)), labels one-hot."""

import gzip
import pickle
import zlib
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import torch

from ml.datasets import Arrays
from ml.errors import DataError

SIDE = 28

# The errors of gzip, of torch's restricted unpickler and of wrong shapes for a file that is something else.
UNREADABLE = (
    OSError,
    EOFError,
    zlib.error,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    pickle.UnpicklingError,
)


def read_report_pickle(path: Path) -> Arrays:
    """Return all images of the file, uint8 [n, 1, 28, 28], with their labels.

    Only tensors are unpickled (`weights_only`), so a file from elsewhere cannot run code.

    Raises:
        DataError: if the file is something else.
    """
    try:
        with gzip.open(path) as file:
            pairs = torch.load(cast("IO[bytes]", file), weights_only=True, map_location="cpu")
        images, labels = zip(*((_images(x), _labels(y)) for x, y in pairs), strict=True)
    except UNREADABLE as error:
        raise DataError(f"{path} is not the report's mnist.pkl.gz: {error}") from error
    return Arrays(np.concatenate(images), np.concatenate(labels))


def _images(tensor: Any) -> np.ndarray:
    """Return pixels as bytes; the file may hold 0..1 or 0..255."""
    pixels: np.ndarray = tensor.double().reshape(-1, 1, SIDE, SIDE).numpy()
    levels: np.ndarray = np.rint(pixels * (255 if pixels.max() <= 1 else 1)).astype(np.uint8)
    return levels


def _labels(tensor: Any) -> np.ndarray:
    labels = tensor.argmax(1) if tensor.ndim == 2 else tensor
    numbers: np.ndarray = labels.numpy()
    return numbers.astype(np.uint8)
