"""An uploaded data set: a zip archive of two arrays, read and checked completely before it is stored.

Each member is an array in numpy's format, as numpy.savez writes it, or an IDX file, with or without gzip. Nothing is
unpickled, and nothing is unpacked beyond the limit: sizes are checked before memory is allocated.
"""

import gzip
import io
import os
import struct
import sys
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO

import numpy as np

from api.http.errors import BadInput
from api.inputs.npy import array_of, shaped
from ml.datasets import Arrays, split_sizes

MAX_MEMBERS = 8
END, ZIP64_LOCATOR, MAX_DIRECTORY = 22, 20, 1 << 16  # bytes of an archive's last records, and of its list of members
MIN_IMAGES = 100  # 10 for testing and 18 for validation; an accuracy on fewer means little
MAX_CLASSES = 256  # labels are bytes
MAX_NAME = 100  # characters of a class name
CHARACTER = 4  # bytes per character in an array of texts
MAX_IMAGES = 1_000_000  # each has a line in the results of a predict job
SLICE = 1024  # images
GZIP, NPY = b"\x1f\x8b", b"\x93NUMPY"
IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}  # http://yann.lecun.com/exdb/mnist
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, struct.error),
    *(UnicodeDecodeError, IndexError),  # a member's name that is not UTF-8, or empty
)


@dataclass(frozen=True)
class ArchiveContent:
    """The images, labels and classes of an archive."""

    arrays: Arrays
    classes: tuple[str, ...]  # names, by label


def read_archive(file: IO[bytes], limit: int, classes: tuple[str, ...] | None = None) -> ArchiveContent:
    """Read the data set in a zip archive.

    Args:
        file: the archive.
        limit: the most bytes that it may unpack to.
        classes: the names of the classes by label; by default those of the archive's member `classes`, else the
            labels if they are texts, else numbers.

    Raises:
        BadInput: if the archive or one of its arrays is invalid.
    """
    members = _members(file, limit)
    images = _images(_only(members, "images"))
    labels = _only(members, "labels")
    if labels.shape not in ((len(images),), (len(images), 1)):
        detail = f"wrong number of labels, shape {list(labels.shape)}; give one for each of the {len(images):,} images"
        raise BadInput("#/labels", detail)
    if len(images) > MAX_IMAGES:
        raise BadInput("#/images", f"too many images, {len(images):,}; send at most {MAX_IMAGES:,}")
    if len(images) < MIN_IMAGES or min(split_sizes(len(images), None, "random")) < 1:
        raise BadInput("#/images", f"too few images to split, {len(images)}; send at least {MIN_IMAGES}")
    names = classes or _names(members)
    numbers, names = _by_name(labels.ravel(), names) if labels.dtype.kind == "U" else _by_number(labels.ravel(), names)
    return ArchiveContent(Arrays(images, numbers), names)


def _members(file: IO[bytes], limit: int) -> dict[str, np.ndarray]:
    """Return the arrays of an archive by name, without folder and suffix."""
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MAX_MEMBERS:
                raise BadInput("#", f"the archive has {len(entries)} members; send images, labels and at most classes")
            if not {entry.compress_type for entry in entries} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise BadInput("#", "unsupported compression; store or deflate the members")
            if sum(entry.file_size for entry in entries) > limit:
                raise _too_large(limit)
            contents = {entry.filename: _content(archive, entry) for entry in entries}
    except DAMAGED:
        raise BadInput("#", "not a readable .zip or .npz file; write one with numpy.savez") from None
    members: dict[str, np.ndarray] = {}
    left = limit
    for path, content in contents.items():
        if (name := _bare(path)) in members:
            raise BadInput(
                f"#/{name}"[:MAX_NAME], f"two members are called “{name}”; send one archive for each data set"
            )
        unpacked = _unpacked(f"#/{path[:MAX_NAME]}", content, left, limit) if content.startswith(GZIP) else content
        left -= len(unpacked)
        members[name] = _array(path, unpacked)
    return members


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """Return a member, unpacked to no more than its declared size: a damaged member might unpack to a gigabyte."""
    with archive.open(entry) as member:
        return member.read(entry.file_size) if entry.file_size else b""


def _check_directory(file: IO[bytes]) -> None:
    """Refuse a list of members that is too long, because `zipfile` reads the whole list at once.

    Section 4.3.16 of https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT describes the last 22 bytes.

    Raises:
        BadInput: if the list is too long, or the file is not a plain zip archive.
    """
    file.seek(-(ZIP64_LOCATOR + END), os.SEEK_END)
    tail = file.read()
    (size,) = struct.unpack_from("<L", tail, ZIP64_LOCATOR + 12)
    if not tail.startswith(b"PK\5\6", ZIP64_LOCATOR) or tail.startswith(b"PK\6\7") or size > MAX_DIRECTORY:
        raise BadInput("#", "not a plain .zip or .npz file with few members; write one with numpy.savez")


def _bare(path: str) -> str:
    """Return the name of a member without folder and suffix."""
    return path.rpartition("/")[2].partition(".")[0]


def _array(path: str, content: bytes) -> np.ndarray:
    name = f"#/{path[:MAX_NAME]}"
    found = array_of(content, "uifbU", name) if content.startswith(NPY) else _idx(name, content)
    if not found.ndim:
        raise BadInput(name, "a single value; give a list of images, labels or classes")
    if found.dtype.kind == "U":
        _check_texts(name, np.ascontiguousarray(found))
    return found


def _check_texts(name: str, texts: np.ndarray) -> None:
    """Refuse an array of texts with invalid code points, which a file not written by numpy may hold.

    Raises:
        BadInput: if one is invalid.
    """
    if texts.view(f"{texts.dtype.byteorder}u4").max() > sys.maxunicode:
        raise BadInput(name, "holds invalid characters; give texts in Unicode")


def _unpacked(name: str, content: bytes, left: int, limit: int) -> bytes:
    """Unpack a gzip file.

    Raises:
        BadInput: if the file is damaged, or more than `left` bytes long.
    """
    try:
        with gzip.open(io.BytesIO(content)) as packed:
            found = packed.read(left + 1)
    except DAMAGED:
        raise BadInput(name, "damaged gzip file; pack it again") from None
    if len(found) > left:
        raise _too_large(limit)
    return found


def _too_large(limit: int) -> BadInput:
    return BadInput("#", f"unpacks to more than {limit:,} bytes, the limit of CHIFFRE_MAX_DATASET_BYTES")


def _idx(name: str, content: bytes) -> np.ndarray:
    """Return the array of an IDX file."""
    try:
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        dtype = np.dtype(IDX_TYPES[kind] if zeros == 0 else "")
    except (struct.error, KeyError, TypeError):
        raise BadInput(name, "neither a .npy nor an IDX file; write one with numpy.save") from None
    return shaped(content, 4 + 4 * dimensions, shape, dtype, "C", name)


def _only(members: dict[str, np.ndarray], word: str) -> np.ndarray:
    """Return the member with this word in its name, such as "train-images-idx3-ubyte"."""
    found = [array for name, array in members.items() if word in name]
    if len(found) != 1:
        names = ", ".join(sorted(members))[:200] or "nothing"
        raise BadInput(f"#/{word}", f"not exactly one member with “{word}” in its name; the archive has {names}")
    return found[0]


def _images(array: np.ndarray) -> np.ndarray:
    """Return images as uint8 [n, channels, height, width]."""
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4 or array.shape[1] not in (1, 3) or array.shape[3] in (1, 3):
        shapes = "[n, height, width], [n, height, width, channels] or [n, channels, height, width]"
        detail = f"wrong shape, {list(array.shape)}; give {shapes} with 1 or 3 channels"
        raise BadInput("#/images", detail)
    return np.ascontiguousarray(_bytes(array))


def _bytes(array: np.ndarray) -> np.ndarray:
    """Return pixels as 0..255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "uif":
        raise BadInput("#/images", f"wrong type of pixels, {array.dtype}; give numbers")
    white = 1 if array.dtype.kind == "f" else 255
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= white):
        raise BadInput("#/images", f"pixels from {low:g} to {high:g}; scale pixels of type {array.dtype} to 0..{white}")
    found = np.empty(array.shape, np.uint8)
    for first in range(
        0, len(array), SLICE
    ):  # in slices: the products of all at once would take eight times the memory
        found[first : first + SLICE] = np.rint(array[first : first + SLICE] * (255 / white))
    return found


def _names(members: dict[str, np.ndarray]) -> tuple[str, ...] | None:
    if "classes" not in members:
        return None
    names = members["classes"]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise BadInput("#/classes", f"wrong type, {names.dtype} of shape {list(names.shape)}; give a list of texts")
    # Checked before conversion: Python's own strings take many times the memory.
    if len(names) > MAX_CLASSES:
        raise BadInput("#/classes", f"wrong number of classes, {len(names)}; give 2 to {MAX_CLASSES}")
    if names.dtype.itemsize > CHARACTER * MAX_NAME:
        raise BadInput("#/classes", f"class names are too long, {names.dtype}; give at most {MAX_NAME} characters each")
    return tuple(names.tolist())


def _by_name(labels: np.ndarray, names: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels that are texts as numbers, and the names of the classes."""
    different = np.unique(labels)
    if len(different) > MAX_CLASSES:
        raise BadInput("#/labels", f"too many different labels, {len(different)}; give at most {MAX_CLASSES} classes")
    found = tuple(different.tolist())
    names = check_classes(names or found)
    for unknown in sorted(set(found) - set(names)):
        place = int(np.flatnonzero(labels == unknown)[0])
        raise BadInput(
            f"#/labels/{place}",
            f"the label is none of the {len(names)} classes; name its class too, or change the label",
        )
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers[name] for name in found], np.uint8)[np.searchsorted(different, labels)], names


def _by_number(labels: np.ndarray, names: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return labels that are numbers, and the names of the classes: by default the numbers, without gaps."""
    whole = labels.dtype.kind in "ui" or (labels.dtype.kind == "f" and np.array_equal(labels, np.rint(labels)))
    if not whole:
        raise BadInput("#/labels", f"wrong type of labels, {labels.dtype}; give whole numbers from 0 on, or texts")
    classes = len(names) if names else int(np.clip(float(labels.max()) + 1, 2, MAX_CLASSES))
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise BadInput(f"#/labels/{int(outside[0])}", f"the label is out of range; give one from 0 to {classes - 1}")
    missing = np.setdiff1d(np.arange(classes), labels)
    if len(missing) and names is None:
        detail = f"no image has the label {int(missing[0])}; number classes from 0 without gaps, or name them all"
        raise BadInput("#/labels", detail)
    return labels.astype(np.uint8), check_classes(names or tuple(map(str, range(classes))))


def check_classes(names: tuple[str, ...], where: str = "#/classes") -> tuple[str, ...]:
    """Return the names of classes.

    Raises:
        BadInput: if they are too few, too many, too long, not printable or not different.
    """
    if not 2 <= len(names) <= MAX_CLASSES:
        raise BadInput(where, f"wrong number of classes, {len(names)}; give 2 to {MAX_CLASSES}")
    if len(set(names)) < len(names):
        raise BadInput(where, "two classes have the same name; give each its own")
    if not all(name.strip() and len(name) <= MAX_NAME and name.isprintable() for name in names):
        raise BadInput(where, f"invalid class name; give each 1 to {MAX_NAME} printable characters")
    return names
