"""Numbers as images: what a body holds, checked and brought to what every network takes, float32 in 0..1."""

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
    """Images to classify, of which some may be unusable."""

    pixels: np.ndarray  # [n, channels, height, width], those that can be used: float32 in 0..1, or uint8 of 0..255
    scales: list[int]  # n values: what was taken for white
    errors: dict[int, str] = field(default_factory=dict)  # by place among all that were sent: why one cannot be used
    reports: list[dict[str, Any]] | None = None  # n of them, where the images were brought to another form
    several: bool = False  # whether a list was sent, so that a list is answered

    @property
    def count(self) -> int:
        """How many were sent."""
        return len(self.pixels) + len(self.errors)

    def reported(self, reports: list[dict[str, Any]], pixels: np.ndarray | None = None) -> "InputImages":
        """The same with what was done to each image, and with what came of it."""
        return replace(self, reports=reports, pixels=self.pixels if pixels is None else pixels)


def one_image(values: Any, scale: int | None, plain: bool, shape: Shape) -> InputImages:
    """The image in a JSON list of numbers; BadInput names what is wrong with it.

    `plain` promises that no true or false stands in it.
    """
    found = _bytes(values, prod(shape)) if plain else None
    # Without its zeros and ones something is left: a value exceeds 1. Half a microsecond; numpy's max takes five.
    if found is not None and (scale == WHITE or (scale is None and found.lstrip(b"\0\1"))):
        return InputImages(np.frombuffer(found, np.uint8).reshape(1, *shape), [WHITE])
    row = np.frombuffer(found, np.uint8) if found is not None else _numbers(values, shape, "#/pixels")
    pixels, scales, errors = in_unit(row[None], scale)
    if errors:
        raise BadInput("#/pixels", errors[0])
    return InputImages(pixels.reshape(-1, *shape), scales)


def many_images(lists: list[Any], scale: int | None, plain: bool, shape: Shape) -> InputImages:
    """The images in a JSON list of lists; what is wrong with one is told in its place, up to MAX_ERRORS words on it."""
    rows: list[np.ndarray] = []
    errors: dict[int, str] = {}
    for place, values in enumerate(lists):
        found = _bytes(values, prod(shape)) if plain else None
        try:
            rows.append(
                _numbers(values, shape, f"#/images/{place}") if found is None else np.frombuffer(found, np.uint8)
            )
        except BadInput as error:
            errors[place] = _in_words(error)
    return _several(_stacked(rows, prod(shape)), shape, scale, errors)


def byte_images(body: bytes, scale: int | None, shape: Shape) -> InputImages:
    """Return the images of a body with one byte a pixel; of a single image no list is made.

    Raises:
        BadInput: if the body holds no whole number of images, or too many.
    """
    features = prod(shape)
    if not body or len(body) % features:
        raise BadInput("#", f"{features} bytes an image are needed, and the body has {len(body)}")
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
        raise BadInput("#", f"an array of {prod(shape)} numbers an image is needed, not {list(array.shape)}")
    return rows, several


def of_array(rows: np.ndarray, shape: Shape, scale: int | None, several: bool) -> InputImages:
    """The images of uint8 or float64 [n, features]; of several what is wrong with one is told in its place."""
    images = _several(rows, shape, scale, {})
    if images.errors and not several:
        raise BadInput("#", images.errors[0])
    return replace(images, several=several)


def in_unit(rows: np.ndarray, scale: int | None) -> tuple[np.ndarray, list[int], dict[int, str]]:
    """Return the usable rows of numbers [n, features] as `InputImages` has them, their scales, and each problem."""
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
        raise BadInput("#", f"at most {MAX_IMAGES} images at once, not {len(rows)}")
    return rows


def _several(rows: np.ndarray, shape: Shape, scale: int | None, errors: dict[int, str]) -> InputImages:
    places = [place for place in range(len(rows) + len(errors)) if place not in errors]
    pixels, scales, unusable = in_unit(rows, scale) if len(rows) else (rows.astype(np.float32), [], {})
    errors = errors | {places[place]: detail for place, detail in unusable.items()}
    return InputImages(pixels.reshape(-1, *shape), scales, errors, several=True)


def _bytes(values: Any, features: int) -> bytearray | None:
    """A list of whole numbers from 0 to 255, this many; None where it is anything else."""
    if type(values) is not list or len(values) != features:
        return None
    try:
        return bytearray(values)
    except (ValueError, TypeError):
        return None


def _numbers(values: Any, shape: Shape, pointer: str) -> np.ndarray:
    """A list of numbers, or of rows of them, as float64 [features]; BadInput names what is no number from 0 to 255."""
    dims = shape[1:] if shape[0] == 1 else shape
    flat = _flat(values, dims, pointer)
    if set(map(type, flat)) <= {int, float}:
        try:
            row = np.asarray(flat, np.float64)
        except OverflowError:
            row = np.full(1, np.inf)
        if row.min() >= 0 and row.max() <= WHITE:
            return row
    raise _complaint(_wrong(values, dims, pointer))


def _flat(values: Any, dims: Shape, pointer: str) -> list[Any]:
    """The numbers of a list as long as an image, or of nested lists of its dimensions."""
    if not isinstance(values, list):
        raise BadInput(pointer, f"a list of {prod(dims)} numbers is needed")
    if _nested(values, dims):
        parts = (_flat(part, dims[1:], f"{pointer}/{place}") for place, part in enumerate(values))
        return list(chain.from_iterable(parts))
    if len(values) != prod(dims):
        raise BadInput(pointer, f"{prod(dims)} numbers are needed, not {len(values)}")
    return values


def _nested(values: list[Any], dims: Shape) -> bool:
    return len(dims) > 1 and len(values) == dims[0] and all(isinstance(part, list) for part in values)


def _wrong(values: list[Any], dims: Shape, pointer: str) -> Iterator[str]:
    """Pointers to what is no number from 0 to 255."""
    nested = _nested(values, dims)
    for place, value in enumerate(values):
        here = f"{pointer}/{place}"
        if nested:
            yield from _wrong(value, dims[1:], here)
        elif type(value) not in (int, float) or not 0 <= value <= WHITE:
            yield here


def _complaint(pointers: Iterator[str]) -> BadInput:
    detail = f"a number from 0 to {WHITE} is needed"
    first, *more = (pointer for pointer, _ in zip(pointers, range(MAX_ERRORS), strict=False))
    return BadInput(first, detail, *(FieldError(pointer=pointer, detail=detail) for pointer in more))


def _in_words(error: BadInput) -> str:
    first = error.errors[0]
    return f"{first.pointer}: {first.detail}"


def _stacked(rows: list[np.ndarray], features: int) -> np.ndarray:
    return np.stack(rows) if rows else np.empty((0, features), np.uint8)


def _out_of_range(smallest: float, largest: float) -> str:
    if isfinite(largest) and smallest >= 0 and largest <= WHITE:
        return "a value exceeds the scale 1; leave scale out or give 255"
    return f"every value must be a number from 0 to {WHITE}"
