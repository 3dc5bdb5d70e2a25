"""Arrays in numpy's own format, from whoever sends them."""

import io
from math import prod

import numpy as np

from api.http.errors import BadInput

MAX_HEADER = 10_000  # bytes of an npy file's header; numpy's own limit
MAX_DIMENSIONS = 8  # numpy itself has a limit, which depends on its version; no array of images has so many


def array_of(content: bytes, kinds: str, pointer: str = "#") -> np.ndarray:
    """The array of an npy file; nothing is unpickled, and nothing larger than the file is made.

    `kinds` are the letters of numpy's kinds of number that may come. BadInput where it cannot be read.
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read_header[version](file, MAX_HEADER)
    except Exception:  # numpy parses the head as Python's literals, and each of its parts fails in a way of its own
        raise BadInput(pointer, "not an npy file of version 1 or 2; numpy.save writes one") from None
    if dtype.kind not in kinds or (dtype.kind in "uif" and dtype.itemsize > 8):
        raise BadInput(pointer, f"an array of numbers is needed, such as uint8 or float32, not {dtype}")
    return shaped(content, file.tell(), shape, dtype, "F" if fortran else "C", pointer)


def numbers_of(content: bytes) -> np.ndarray:
    """Return the numbers of an npy file: uint8 unchanged, other types as float64."""
    array = array_of(content, "uif")
    return array if array.dtype == np.uint8 else array.astype(np.float64)


def shaped(content: bytes, begin: int, shape: tuple[int, ...], dtype: np.dtype, order: str, pointer: str) -> np.ndarray:
    """What a file holds from a byte on as an array that shares its memory; BadInput where the length is another."""
    length = len(content) - begin
    if len(shape) > MAX_DIMENSIONS:
        raise BadInput(pointer, f"an array of {len(shape)} dimensions; {MAX_DIMENSIONS} are the most")
    if min(shape, default=1) < 1 or dtype.itemsize < 1 or length != prod(shape) * dtype.itemsize:
        raise BadInput(pointer, f"an array of shape {list(shape)} and {length} bytes of it do not go together")
    found: np.ndarray = np.frombuffer(content, dtype, offset=begin).reshape(shape, order=order)  # type: ignore[call-overload]
    return found
