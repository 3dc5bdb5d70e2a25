"""Numbers as images: the content of a body, checked and brought to what every network takes, float32 in 0..1."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from math import isfinite, prod
from typing import Any

import numpy as np

from api.http.errors import BadInput
from api.http.problems import MAX_ERRORS, FieldError
from ml.layers import Shape

WHITE = 255
MAX_IMAGES = 1024  # in one body


@dataclass(slots=True)
class InputImages:
    """Images to classify; some of a list may be unusable."""

    pixels: np.ndarray  # of the n usable images, [n, channels, height, width]: float32 in 0..1, or uint8 in 0..255
    scales: list[int]  # n values: the value of white
    errors: dict[int, str] = field(default_factory=dict)  # by position in the list: why an image is unusable
    reports: list[dict[str, Any]] | None = None  # n of them, if the images were brought to another form
    several: bool = False  # True for a list of images, which gets a list as its answer

    @property
    def count(self) -> int:
        """The number of images in the request."""
        return len(self.pixels) + len(self.errors)

    def reported(self, reports: list[dict[str, Any]], pixels: np.ndarray | None = None) -> "InputImages":
        """Return the images with a report on how each was changed, and with the changed pixels if given."""
        return replace(self, reports=reports, pixels=self.pixels if pixels is None else pixels)


def one_image(values: Any, scale: int | None, plain: bool, shape: Shape) -> InputImages:
    """Return the image of a JSON list of numbers.

    Args:
        values: the parsed JSON.
        scale: the value of white, 1 or 255; None to decide by the largest value.
        plain: promises that `values` holds neither true nor false.
        shape: the network's, [channels, height, width].

    Raises:
        BadInput: if it is not an image of this shape.
    """
    found = _bytes(values, prod(shape)) if plain else None
    # If bytes are left without the leading zeros and ones, a value exceeds 1. This takes 0.5 µs; numpy's max takes 5.
    if found is not None and (scale == WHITE or (scale is None and found.lstrip(b"\0\1"))):
        return InputImages(np.frombuffer(found, np.uint8).reshape(1, *shape), [WHITE])
    row = np.frombuffer(found, np.uint8) if found is not None else _numbers(values, shape, "#/pixels")
    pixels, scales, errors = in_unit(row[None], scale)
    if errors:
        raise BadInput("#/pixels", errors[0])
    return InputImages(pixels.reshape(-1, *shape), scales)


def many_images(lists: list[Any], scale: int | None, plain: bool, shape: Shape) -> InputImages:
    """Return the images of a JSON list of lists, with an error in the place of each unusable one."""
    rows: list[np.ndarray] = []
    errors: dict[int, str] = {}
    for place, values in enumerate(lists):
        found = _bytes(values, prod(shape)) if plain else None
        try:
            rows.append(
                _numbers(values, shape, f"#/images/{place}") if found is None else np.frombuffer(found, np.uint8)
            )
        except BadInput as error:
            errors[place] = error.in_one_line()
    return _several(_stacked(rows, prod(shape)), shape, scale, errors)


def byte_images(body: bytes, scale: int | None, shape: Shape) -> InputImages:
    """Return the images of a body with one byte a pixel; a single image does not count as a list.

    Raises:
        BadInput: if the body holds no whole number of images, or too many.
    """
    features = prod(shape)
    if not body or len(body) % features:
        raise BadInput("#", f"the body has {len(body):,} bytes; give {features} bytes for each image")
    rows = _few(np.frombuffer(body, np.uint8).reshape(-1, features))
    return of_array(rows, shape, scale, several=len(rows) > 1)


def array_images(array: np.ndarray, scale: int | None, shape: Shape) -> InputImages:
    """Return the images of an array, uint8 or float64: one of the shape, or many along the first axis."""
    rows, several = rows_of(array, shape)
    return of_array(_few(rows), shape, scale, several)


def rows_of(array: np.ndarray, shape: Shape) -> tuple[np.ndarray, bool]:
    """Return an array as [n, features], and whether it is a list of images.

    Raises:
        BadInput: if the array does not fit the shape.
    """
    several = array.ndim > 1 and array.shape not in (shape, shape[1:])
    rows = array.reshape(len(array), -1) if several and len(array) else array.reshape(1, -1)
    if rows.shape[1] != prod(shape):
        raise BadInput("#", f"wrong shape, {list(array.shape)}; give {prod(shape)} numbers for each image")
    return rows, several


def of_array(rows: np.ndarray, shape: Shape, scale: int | None, several: bool) -> InputImages:
    """Return the images of an array [n, features], uint8 or float64.

    Raises:
        BadInput: if a single image is unusable; a list has an error in its place.
    """
    images = _several(rows, shape, scale, {})
    if images.errors and not several:
        raise BadInput("#", images.errors[0])
    return replace(images, several=several)


def in_unit(rows: np.ndarray, scale: int | None) -> tuple[np.ndarray, list[int], dict[int, str]]:
    """Return the usable rows of numbers [n, features] as `InputImages` holds them, their scales, and errors by row."""
    largest = rows.max(1)
    if rows.dtype == np.uint8 and scale != 1 and (scale or largest.min() > 1):
        return rows, [WHITE] * len(rows), {}
    smallest = rows.min(1)
    scales = np.full(len(rows), scale) if scale else np.where(largest <= 1, 1, WHITE)
    good = (smallest >= 0) & (largest <= scales)  # false for NaN, and for infinity
    errors = {
        int(place): _out_of_range(float(smallest[place]), float(largest[place])) for place in np.flatnonzero(~good)
    }
    scaled = (rows[good] / scales[good, None]).astype(np.float32)
    return scaled, scales[good].tolist(), errors


def _few(rows: np.ndarray) -> np.ndarray:
    if len(rows) > MAX_IMAGES:
        raise BadInput("#", f"too many images, {len(rows):,}; send at most {MAX_IMAGES:,} at once")
    return rows


def _several(rows: np.ndarray, shape: Shape, scale: int | None, errors: dict[int, str]) -> InputImages:
    places = [place for place in range(len(rows) + len(errors)) if place not in errors]
    pixels, scales, unusable = in_unit(rows, scale) if len(rows) else (rows.astype(np.float32), [], {})
    errors = errors | {places[place]: detail for place, detail in unusable.items()}
    return InputImages(pixels.reshape(-1, *shape), scales, errors, several=True)


def _bytes(values: Any, features: int) -> bytearray | None:
    """Return a list of `features` whole numbers from 0 to 255 as bytes; None for anything else."""
    if type(values) is not list or len(values) != features:
        return None
    try:
        return bytearray(values)
    except (ValueError, TypeError):
        return None


def _numbers(values: Any, shape: Shape, pointer: str) -> np.ndarray:
    """Return a list of numbers, or of rows of them, as float64 [features].

    Raises:
        BadInput: for each value that is not a number from 0 to 255.
    """
    dims = shape[1:] if shape[0] == 1 else shape
    flat = _flat(values, dims, pointer)
    if set(map(type, flat)) <= {int, float}:
        try:
            row = np.asarray(flat, np.float64)
        except OverflowError:
            row = np.full(1, np.inf)
        if row.min() >= 0 and row.max() <= WHITE:
            return row
    raise _not_numbers(_wrong(values, dims, pointer))


def _flat(values: Any, dims: Shape, pointer: str) -> list[Any]:
    """Return the numbers of a list as long as an image, or of nested lists of its dimensions."""
    if not isinstance(values, list):
        raise BadInput(pointer, f"wrong type; give a list of {prod(dims)} numbers")
    if _nested(values, dims):
        rows = (_flat(row, dims[1:], f"{pointer}/{place}") for place, row in enumerate(values))
        return list(chain.from_iterable(rows))
    if len(values) != prod(dims):
        raise BadInput(pointer, f"{prod(dims)} numbers are needed, not {len(values)}")
    return values


def _nested(values: list[Any], dims: Shape) -> bool:
    return len(dims) > 1 and len(values) == dims[0] and all(isinstance(row, list) for row in values)


def _wrong(values: list[Any], dims: Shape, pointer: str) -> Iterator[str]:
    """Yield pointers to the values that are not numbers from 0 to 255."""
    nested = _nested(values, dims)
    for place, value in enumerate(values):
        here = f"{pointer}/{place}"
        if nested:
            yield from _wrong(value, dims[1:], here)
        elif type(value) not in (int, float) or not 0 <= value <= WHITE:
            yield here


def _not_numbers(pointers: Iterator[str]) -> BadInput:
    detail = f"not allowed; give a number from 0 to {WHITE}"
    first, *more = (pointer for pointer, _ in zip(pointers, range(MAX_ERRORS), strict=False))
    return BadInput(first, detail, *(FieldError(pointer=pointer, detail=detail) for pointer in more))


def _stacked(rows: list[np.ndarray], features: int) -> np.ndarray:
    return np.stack(rows) if rows else np.empty((0, features), np.uint8)


def _out_of_range(smallest: float, largest: float) -> str:
    if isfinite(largest) and smallest >= 0 and largest <= WHITE:
        return "a value is above 1, the scale; leave scale out or give 255"
    return f"a value is out of range; give numbers from 0 to {WHITE}"
