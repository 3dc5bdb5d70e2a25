"""A data set as a person sends it: a zip archive of two arrays, read and checked before anything is kept of it.

Each member is an array in numpy's format, as numpy.savez writes it, or an IDX file, packed by gzip or not. Nothing is
unpickled, and nothing is unpacked beyond the limit: sizes are looked at before memory is asked for.
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
MIN_IMAGES = 100  # 10 of them test and 18 validate; of fewer an accuracy says next to nothing
MAX_CLASSES = 256  # labels are bytes
MAX_NAME = 100  # characters of a class
CHARACTER = 4  # bytes of each in an array of texts
MAX_IMAGES = 1_000_000  # each has its line in the results of a predict job
SLICE = 1024  # images
GZIP, NPY = b"\x1f\x8b", b"\x93NUMPY"
IDX_TYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}  # http://yann.lecun.com/exdb/mnist
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, struct.error),
    *(UnicodeDecodeError, IndexError),  # a member's name that is no UTF-8, or is empty
)


@dataclass(frozen=True)
class Sent:
    """What an archive holds."""

    arrays: Arrays
    classes: tuple[str, ...]  # names, by label


def read_archive(file: IO[bytes], limit: int, classes: tuple[str, ...] | None = None) -> Sent:
    """The data set in a zip archive that unpacks to at most `limit` bytes; BadInput names what is wrong and where.

    Classes are named by `classes`, else by the archive's member of that name, else by labels that are texts, else by
    number.
    """
    members = _members(file, limit)
    images = _images(_only(members, "images"))
    labels = _only(members, "labels")
    if labels.shape not in ((len(images),), (len(images), 1)):
        detail = f"one label an image is needed: {len(images)} images, and labels of shape {list(labels.shape)}"
        raise BadInput("#/labels", detail)
    if len(images) > MAX_IMAGES:
        raise BadInput("#/images", f"{len(images)} images are more than a data set has; send at most {MAX_IMAGES}")
    if len(images) < MIN_IMAGES or min(split_sizes(len(images), None, "random")) < 1:
        raise BadInput("#/images", f"{len(images)} images are too few to be divided; send at least {MIN_IMAGES}")
    names = classes or _names(members)
    numbers, names = _by_name(labels.ravel(), names) if labels.dtype.kind == "U" else _by_number(labels.ravel(), names)
    return Sent(Arrays(images, numbers), names)


def _members(file: IO[bytes], limit: int) -> dict[str, np.ndarray]:
    """The arrays of an archive by name, without folder and suffix."""
    try:
        _check_directory(file)
        with zipfile.ZipFile(file) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MAX_MEMBERS:
                raise BadInput("#", f"the archive has {len(entries)} members; images and labels are needed")
            if not {entry.compress_type for entry in entries} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise BadInput("#", "members are stored or deflated; others cannot be unpacked piece by piece")
            if sum(entry.file_size for entry in entries) > limit:
                raise _too_large(limit)
            contents = {entry.filename: _content(archive, entry) for entry in entries}
    except DAMAGED:
        raise BadInput("#", "no zip archive that can be unpacked; numpy.savez writes one") from None
    members: dict[str, np.ndarray] = {}
    left = limit
    for path, content in contents.items():
        if (name := _bare(path)) in members:
            raise BadInput(f"#/{name}"[:MAX_NAME], f"two members are called “{name}”; send one archive for each")
        unpacked = _unpacked(f"#/{path[:MAX_NAME]}", content, left, limit) if content.startswith(GZIP) else content
        left -= len(unpacked)
        members[name] = _array(path, unpacked)
    return members


def _content(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    """A member, of which no more is unpacked than it is said to hold: read as a whole, a gigabyte may be first."""
    with archive.open(entry) as member:
        return member.read(entry.file_size) if entry.file_size else b""


def _check_directory(file: IO[bytes]) -> None:
    """BadInput where the list of members is too long: all of it is read before anything of it can be looked at.

    The last 22 bytes are told by 4.3.16 of https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT.
    """
    file.seek(-(ZIP64_LOCATOR + END), os.SEEK_END)
    tail = file.read()
    (size,) = struct.unpack_from("<L", tail, ZIP64_LOCATOR + 12)
    if not tail.startswith(b"PK\5\6", ZIP64_LOCATOR) or tail.startswith(b"PK\6\7") or size > MAX_DIRECTORY:
        raise BadInput("#", "no plain zip archive of few members; numpy.savez writes one")


def _bare(path: str) -> str:
    """The name of a member without folder and suffix."""
    return path.rpartition("/")[2].partition(".")[0]


def _array(path: str, content: bytes) -> np.ndarray:
    name = f"#/{path[:MAX_NAME]}"
    found = array_of(content, "uifbU", name) if content.startswith(NPY) else _idx(name, content)
    if not found.ndim:
        raise BadInput(name, "a single value is no list of images, labels or classes")
    if found.dtype.kind == "U":
        _check_texts(name, np.ascontiguousarray(found))
    return found


def _check_texts(name: str, texts: np.ndarray) -> None:
    """BadInput where there are no characters of these numbers, as what was not written by numpy may have."""
    if texts.view(f"{texts.dtype.byteorder}u4").max() > sys.maxunicode:
        raise BadInput(name, "what it holds are no texts")


def _unpacked(name: str, content: bytes, left: int, limit: int) -> bytes:
    """What gzip packed; BadInput where it is more than is left of the limit for all members."""
    try:
        with gzip.open(io.BytesIO(content)) as packed:
            found = packed.read(left + 1)
    except DAMAGED:
        raise BadInput(name, "packed by gzip, and damaged") from None
    if len(found) > left:
        raise _too_large(limit)
    return found


def _too_large(limit: int) -> BadInput:
    return BadInput("#", f"unpacked it is larger than {limit} bytes, what CHIFFRE_MAX_DATASET_BYTES allows")


def _idx(name: str, content: bytes) -> np.ndarray:
    """The array of an IDX file."""
    try:
        zeros, kind, dimensions = struct.unpack_from(">HBB", content)
        shape = struct.unpack_from(f">{dimensions}I", content, 4)
        dtype = np.dtype(IDX_TYPES[kind] if zeros == 0 else "")
    except (struct.error, KeyError, TypeError):
        raise BadInput(name, "neither an npy nor an IDX file") from None
    return shaped(content, 4 + 4 * dimensions, shape, dtype, "C", name)


def _only(members: dict[str, np.ndarray], word: str) -> np.ndarray:
    """The member whose name has this word in it, as "train-images-idx3-ubyte" has."""
    found = [array for name, array in members.items() if word in name]
    if len(found) != 1:
        names = ", ".join(sorted(members))[:200] or "nothing"
        raise BadInput(f"#/{word}", f"one member whose name has “{word}” in it is needed; the archive has {names}")
    return found[0]


def _images(array: np.ndarray) -> np.ndarray:
    """Images as uint8 [n, channels, height, width]."""
    if array.ndim == 3:
        array = array[:, None]
    elif array.ndim == 4 and array.shape[3] in (1, 3) and array.shape[1] not in (1, 3):
        array = array.transpose(0, 3, 1, 2)
    elif array.ndim != 4 or array.shape[1] not in (1, 3) or array.shape[3] in (1, 3):
        detail = (
            "images are [n, height, width], [n, height, width, channels] or [n, channels, height, width] with 1 or "
        )
        raise BadInput("#/images", f"{detail}3 channels, not {list(array.shape)}")
    return np.ascontiguousarray(_bytes(array))


def _bytes(array: np.ndarray) -> np.ndarray:
    """Pixels as 0..255."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind not in "uif":
        raise BadInput("#/images", f"pixels are numbers, not {array.dtype}")
    white = 1 if array.dtype.kind == "f" else 255
    low, high = float(array.min()), float(array.max())
    if not (low >= 0 and high <= white):
        raise BadInput(
            "#/images", f"pixels of {array.dtype} lie in 0..{white}, these in {low:g}..{high:g}; scale them before"
        )
    found = np.empty(array.shape, np.uint8)
    for first in range(0, len(array), SLICE):  # of all at once the products would take eight times the room
        found[first : first + SLICE] = np.rint(array[first : first + SLICE] * (255 / white))
    return found


def _names(members: dict[str, np.ndarray]) -> tuple[str, ...] | None:
    if "classes" not in members:
        return None
    names = members["classes"]
    if names.ndim != 1 or names.dtype.kind != "U":
        raise BadInput("#/classes", f"a list of texts is needed, not {names.dtype} of shape {list(names.shape)}")
    # Before they are Python's own: those take many times the room.
    if len(names) > MAX_CLASSES:
        raise BadInput("#/classes", f"2 to {MAX_CLASSES} classes are needed, not {len(names)}")
    if names.dtype.itemsize > CHARACTER * MAX_NAME:
        raise BadInput("#/classes", f"a name of a class has at most {MAX_NAME} characters, not {names.dtype}")
    return tuple(names.tolist())


def _by_name(labels: np.ndarray, names: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels that are texts as numbers, and the names of the classes."""
    different = np.unique(labels)
    if len(different) > MAX_CLASSES:
        raise BadInput("#/labels", f"{len(different)} different labels; there are at most {MAX_CLASSES} classes")
    found = tuple(different.tolist())
    names = check_classes(names or found)
    for unknown in sorted(set(found) - set(names)):
        place = int(np.flatnonzero(labels == unknown)[0])
        raise BadInput(f"#/labels/{place}", f"the label is none of the {len(names)} classes")
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers[name] for name in found], np.uint8)[np.searchsorted(different, labels)], names


def _by_number(labels: np.ndarray, names: tuple[str, ...] | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels that are numbers, and the names of the classes: without any, the numbers, with none left out."""
    whole = labels.dtype.kind in "ui" or (labels.dtype.kind == "f" and np.array_equal(labels, np.rint(labels)))
    if not whole:
        raise BadInput("#/labels", f"labels are whole numbers from 0 on, or texts, not {labels.dtype}")
    classes = len(names) if names else int(np.clip(float(labels.max()) + 1, 2, MAX_CLASSES))
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise BadInput(f"#/labels/{int(outside[0])}", f"labels lie in 0..{classes - 1}")
    missing = np.setdiff1d(np.arange(classes), labels)
    if len(missing) and names is None:
        detail = f"no image has the label {int(missing[0])}; count classes from 0 without gaps, or name them all"
        raise BadInput("#/labels", detail)
    return labels.astype(np.uint8), check_classes(names or tuple(map(str, range(classes))))


def check_classes(names: tuple[str, ...], where: str = "#/classes") -> tuple[str, ...]:
    """The same; BadInput where they cannot name classes."""
    if not 2 <= len(names) <= MAX_CLASSES:
        raise BadInput(where, f"2 to {MAX_CLASSES} classes are needed, not {len(names)}")
    if len(set(names)) < len(names):
        raise BadInput(where, "two classes have the same name")
    if not all(name.strip() and len(name) <= MAX_NAME and name.isprintable() for name in names):
        raise BadInput(where, f"a name of a class is a text of 1 to {MAX_NAME} characters that can be printed")
    return names
