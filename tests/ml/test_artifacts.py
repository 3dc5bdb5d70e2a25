"""Checkpoints: written completely or not at all, and never read if damaged."""

import ast
import hashlib
import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.artifacts import load_checkpoint, read, save_checkpoint, write
from ml.errors import CheckpointError
from ml.records import Checkpoint

ML = Path(__file__).parents[2] / "ml"
CARD: dict[str, Any] = {
    "model": "mlp",
    "shape": [1, 28, 28],
    "val_loss": 0.1 + 0.2,
    "note": "9 × 9 — ›ok‹",
    "best": None,
}


def _checkpoint() -> Checkpoint:
    rng = np.random.default_rng(0)
    weights = {"1.weight": rng.standard_normal((7, 5), np.float32), "1.bias": rng.standard_normal(7, np.float32)}
    return Checkpoint(weights, CARD)


def _same(one: Checkpoint, other: Checkpoint) -> bool:
    """Return whether two checkpoints are equal bit for bit, including NaNs and signs of zero."""
    bits = [{k: (v.dtype, v.shape, v.tobytes()) for k, v in c.weights.items()} for c in (one, other)]
    return bits[0] == bits[1] and one.card == other.card


@pytest.fixture
def _full_disk() -> Iterator[None]:
    """Limit files to 100 bytes, so that a write fails in its middle as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    """Weights and card are read as they were saved, including numbers that are not finite and other alphabets."""
    checkpoint = _checkpoint()
    checkpoint.weights["odd"] = np.array([np.nan, np.inf, -0.0, 1e-45], np.float32)
    saved = save_checkpoint(tmp_path / "best.safetensors", checkpoint)

    assert _same(load_checkpoint(tmp_path / "best.safetensors", saved.sha256), checkpoint)
    assert _same(load_checkpoint(tmp_path / "best.safetensors"), checkpoint)


def test_weights_that_are_not_contiguous_come_back_equal(tmp_path: Path) -> None:
    """A transposed array is saved by its values, not by its memory layout."""
    weight = np.arange(6, dtype=np.float32).reshape(2, 3).T
    save_checkpoint(tmp_path / "best.safetensors", Checkpoint({"weight": weight}, {}))

    assert np.array_equal(load_checkpoint(tmp_path / "best.safetensors").weights["weight"], weight)


def test_saving_returns_the_files_hash_and_size(tmp_path: Path) -> None:
    """They equal the hash and size of the file on disk."""
    path = tmp_path / "best.safetensors"
    saved = save_checkpoint(path, _checkpoint())

    assert saved.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert saved.size == path.stat().st_size


def test_the_same_checkpoint_makes_the_same_file(tmp_path: Path) -> None:
    """Saving the same content with the card's keys in another order gives the same hash."""
    checkpoint = _checkpoint()
    turned = Checkpoint(checkpoint.weights, dict(reversed(CARD.items())))

    assert save_checkpoint(tmp_path / "a", checkpoint).sha256 == save_checkpoint(tmp_path / "b", turned).sha256


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    """The file is a length, a JSON header and float32s, so that no code in it can run."""
    checkpoint = _checkpoint()
    save_checkpoint(tmp_path / "best.safetensors", checkpoint)
    content = (tmp_path / "best.safetensors").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    first, last = header["1.weight"]["data_offsets"]
    weight = np.frombuffer(content[end + first : end + last], "<f4").reshape(header["1.weight"]["shape"])

    assert json.loads(header["__metadata__"]["chiffre"]) == CARD
    assert np.array_equal(weight, checkpoint.weights["1.weight"])


def test_missing_folders_are_created(tmp_path: Path) -> None:
    """Saving a checkpoint creates all folders of its path."""
    save_checkpoint(tmp_path / "jobs" / "7" / "best.safetensors", _checkpoint())

    assert _same(load_checkpoint(tmp_path / "jobs" / "7" / "best.safetensors"), _checkpoint())


# --- damage


@pytest.mark.parametrize("known", [True, False], ids=["hash known", "hash unknown"])
@pytest.mark.parametrize("kind", ["missing", "a folder", "empty", "truncated", "half a header", "no tensors", "deep"])
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path, kind: str, known: bool) -> None:
    """A missing, truncated or different file is a CheckpointError that names the file."""
    path = tmp_path / "best.safetensors"
    saved = save_checkpoint(path, _checkpoint())
    content = path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind != "missing":
        cut = {"empty": b"", "truncated": content[:-1], "half a header": content[:20], "no tensors": b"{}" * 99}
        cut["deep"] = (200_000).to_bytes(8, "little") + b"[" * 200_000
        path.write_bytes(cut[kind])

    with pytest.raises(CheckpointError, match=r"best\.safetensors"):
        load_checkpoint(path, saved.sha256 if known else None)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """A checkpoint with a known hash is not read if any byte is damaged."""
    path = tmp_path / "best.safetensors"
    saved = save_checkpoint(path, _checkpoint())
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1 << position % 8]) + content[position + 1 :])

        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(path, saved.sha256)


@settings(deadline=None, max_examples=300)
@given(position=st.integers(0, 400), value=st.integers(0, 255))
def test_a_damaged_header_raises_no_other_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    """Without a known hash, a damaged file can be read or raises a CheckpointError, never another error."""
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_checkpoint(path, _checkpoint())
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    try:
        found: object = load_checkpoint(path)
    except CheckpointError as error:
        found = error

    assert isinstance(found, Checkpoint | CheckpointError)


def test_safetensors_of_other_programs_are_refused(tmp_path: Path) -> None:
    """A valid safetensors file without our card is not a checkpoint of Chiffre."""
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  '
    (tmp_path / "theirs.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))

    with pytest.raises(CheckpointError, match="not a checkpoint of Chiffre"):
        load_checkpoint(tmp_path / "theirs.safetensors")


def test_reading_checks_the_hash(tmp_path: Path) -> None:
    """`read` returns what `write` wrote, and refuses a file that has changed since."""
    saved = write(tmp_path / "file", b"content")
    before = read(tmp_path / "file", saved.sha256)
    (tmp_path / "file").write_bytes(b"c0ntent")

    assert before == b"content"
    with pytest.raises(CheckpointError, match="damaged"):
        read(tmp_path / "file", saved.sha256)


# --- complete or not at all


def test_no_temporary_file_is_left(tmp_path: Path) -> None:
    """After saving twice the folder holds the newer file and no temporary file."""
    write(tmp_path / "file", b"old")
    write(tmp_path / "file", b"new")

    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"new")]


@pytest.mark.usefixtures("_full_disk")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """A write that fails in its middle leaves the old content and no temporary file."""
    write(tmp_path / "file", b"old")

    with pytest.raises(OSError, match="File too large"):
        write(tmp_path / "file", b"new" * 1000)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file", b"old")]


def test_a_name_that_is_taken_by_a_folder_leaves_no_temporary_file(tmp_path: Path) -> None:
    """If the file cannot take its name, the temporary file is removed."""
    (tmp_path / "file").mkdir()

    with pytest.raises(IsADirectoryError):
        write(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_open_file_survives_its_replacement(tmp_path: Path) -> None:
    """A reader that has the old file open reads it to its end while a new file takes its name."""
    write(tmp_path / "file", b"old")
    with (tmp_path / "file").open("rb") as file:
        write(tmp_path / "file", b"newer")
        read_after = file.read()

    assert read_after == b"old"


# --- nothing is unpickled

PICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
READERS = ("torch.load", "torch.save", "np.load", "np.save", "np.savez")
REPORT = ML / "images" / "report_pickle.py"


def _imports(tree: ast.AST) -> list[str]:
    """Return the modules that a file imports."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            found.append(node.module or "")
    return found


@pytest.mark.parametrize("path", sorted(set(ML.rglob("*.py")) - {REPORT}), ids=lambda path: path.name)
def test_nothing_is_pickled(path: Path) -> None:
    """Except for the report's data file, nothing in ml imports a pickling module or reads pickles."""
    tree = ast.parse(path.read_text())
    found = [name for name in _imports(tree) if name.split(".")[0] in PICKLERS]
    found += [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Attribute) and ast.unparse(n) in READERS]
    found += [n.arg for n in ast.walk(tree) if isinstance(n, ast.keyword) and n.arg == "allow_pickle"]

    assert found == []


def test_the_reports_file_is_read_only_by_the_command_line() -> None:
    """Only `python -m ml` reads the report's file, and only its tensors are unpickled."""
    readers = [
        path.name for path in ML.rglob("*.py") if "ml.images.report_pickle" in _imports(ast.parse(path.read_text()))
    ]
    calls = [n for n in ast.walk(ast.parse(REPORT.read_text())) if isinstance(n, ast.Call)]
    loads = [ast.unparse(call) for call in calls if "load" in ast.unparse(call.func)]

    assert readers == ["__main__.py"]
    assert len(loads) == 1
    assert "weights_only=True" in loads[0]
