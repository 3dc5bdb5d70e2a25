"""Arrays in numpy's npy format, from untrusted senders."""

import io
from math import prod

import numpy as np

from api.http.errors import BadInput

MAX_HEADER = 10_000  # bytes of an npy file's header; numpy's own limit
MAX_DIMENSIONS = 8  # more than any array of images has; numpy's own limit depends on its version


def array_of(content: bytes, kinds: str, pointer: str = "#") -> np.ndarray:
    """Return the array of an npy file; nothing is unpickled, and no memory beyond the file's size is used.

    Args:
        content: the file.
        kinds: the letters of numpy's kinds of data that are allowed.
        pointer: to the file, for errors.

    Raises:
        BadInput: if the file is damaged or its data are of another kind.
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read_header[version](file, MAX_HEADER)
    except Exception:  # numpy parses the header as Python literals, and raises many kinds of error
        raise BadInput(
            pointer, "not a readable .npy file of format version 1 or 2; write one with numpy.save"
        ) from None
    if dtype.kind not in kinds or (dtype.kind in "uif" and dtype.itemsize > 8):
        raise BadInput(
            pointer, f"wrong type of array, {dtype}; give numbers of at most 8 bytes, such as uint8 or float32"
        )
    return shaped(content, file.tell(), shape, dtype, "F" if fortran else "C", pointer)


def numbers_of(content: bytes) -> np.ndarray:
    """Return the numbers of an npy file: uint8 unchanged, other types as float64."""
    array = array_of(content, "uif")
    return array if array.dtype == np.uint8 else array.astype(np.float64)


def shaped(content: bytes, begin: int, shape: tuple[int, ...], dtype: np.dtype, order: str, pointer: str) -> np.ndarray:
    """Return a file's content from byte `begin` on as an array that shares its memory.

    Raises:
        BadInput: if the length does not fit the shape.
    """
    length = len(content) - begin
    if len(shape) > MAX_DIMENSIONS:
        raise BadInput(pointer, f"too many dimensions, {len(shape)}; give at most {MAX_DIMENSIONS}")
    if min(shape, default=1) < 1 or dtype.itemsize < 1 or length != prod(shape) * dtype.itemsize:
        raise BadInput(pointer, f"{length:,} bytes do not fill an array of shape {list(shape)}; send the whole file")
    found: np.ndarray = np.frombuffer(content, dtype, offset=begin).reshape(shape, order=order)  # type: ignore[call-overload]
    return found
