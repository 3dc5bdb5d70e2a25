"""The report's data file is read without running anything in it."""

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ml.datasets import Arrays
from ml.errors import DataError
from ml.images.report_pickle import read_report_pickle


def _write(path: Path, content: Any) -> Path:
    with gzip.open(path, "wb") as file:
        torch.save(content, file)
    return path


def _pairs(arrays: Arrays, one_hot: bool, scale: float) -> Any:
    """Return images and labels as the report keeps them: a pair to train on and one to test."""
    images = torch.from_numpy(arrays.images.reshape(len(arrays), 784)).double() / scale
    labels = torch.from_numpy(arrays.labels.astype(np.int64))
    kept = torch.nn.functional.one_hot(labels, 10).float() if one_hot else labels
    return (images[:30], kept[:30]), (images[30:], kept[30:])


@pytest.mark.parametrize("one_hot", [True, False])
@pytest.mark.parametrize("scale", [1, 255])
def test_the_reports_file_is_read_as_bytes(tmp_path: Path, digits: Arrays, one_hot: bool, scale: float) -> None:
    """Pixels in 0..1 or 0..255 and labels as one-hot or numbers come out as they went in."""
    some = digits.take(np.arange(50))
    found = read_report_pickle(_write(tmp_path / "mnist.pkl.gz", _pairs(some, one_hot, scale)))

    assert np.array_equal(found.images, some.images)
    assert np.array_equal(found.labels, some.labels)
    assert found.images.dtype == found.labels.dtype == np.uint8


class _Runs:
    """An object whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kept", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused(tmp_path: Path, kept: str) -> None:
    """A pickle with anything except tensors is a DataError, and its content is not run."""
    path = tmp_path / "mnist.pkl.gz"
    if kept == "torch":
        _write(path, _Runs(tmp_path / "ran"))
    else:
        path.write_bytes(gzip.compress(pickle.dumps(_Runs(tmp_path / "ran"), protocol=2)))

    with pytest.raises(DataError, match="not the report's"):
        read_report_pickle(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [None, [], 3, torch.zeros(3), ((torch.zeros(2, 5), torch.zeros(2)),), {"a": 1}])
def test_a_file_with_other_content_is_refused(tmp_path: Path, content: Any) -> None:
    """Tensors of other shapes, or no tensors, are a DataError."""
    with pytest.raises(DataError):
        read_report_pickle(_write(tmp_path / "mnist.pkl.gz", content))


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "flipped", "not gzip"])
def test_a_damaged_file_is_refused(tmp_path: Path, digits: Arrays, damage: str) -> None:
    """A missing, truncated or damaged file is a DataError that names the file."""
    path = _write(tmp_path / "mnist.pkl.gz", _pairs(digits.take(np.arange(50)), True, 255))
    content = path.read_bytes()
    path.unlink()
    half = len(content) // 2
    flips = [content[:i] + bytes([content[i] ^ 0xFF]) + content[i + 1 :] for i in (40, half, len(content) - 6)]
    variants = {"empty": [b""], "truncated": [content[:half]], "flipped": flips, "not gzip": [b"{}" * 99]}
    for variant in variants.get(damage, [None]):
        if variant is not None:
            path.write_bytes(variant)

        with pytest.raises(DataError, match=r"mnist\.pkl\.gz"):
            read_report_pickle(path)
