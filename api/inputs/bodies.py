"""The kinds of body that `/predict` reads: each reader is registered under its content type.

A reader parses a body once. The images follow later from `ParsedBody.images`, once the network's shape is known.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson

from api.http.errors import BadInput
from api.http.field_errors import not_json
from api.inputs.canonical_form import in_canonical_form, picture_image
from api.inputs.npy import numbers_of
from api.inputs.options import Options
from api.inputs.pictures import opened
from api.inputs.pixels import MAX_IMAGES, InputImages, array_images, byte_images, many_images, one_image
from ml.layers import Shape
from ml.registry import Registry

ImagesOf = Callable[[Shape], InputImages]


@dataclass(slots=True)
class ParsedBody:
    """A parsed body whose images are still to be read."""

    options: Options  # of the query and of the body itself
    images: ImagesOf  # reads the images for the network's shape; call it once
    pixels: int = 0  # the number of pixels of a picture that is still to be decoded; 0 for other bodies


Reader = Callable[[bytes, Options], ParsedBody]
readers: Registry[Reader] = Registry("content type")


@readers.register("application/json")
def read_json(body: bytes, options: Options) -> ParsedBody:
    """Parse `pixels`, one image, or `images`, up to MAX_IMAGES of them, and any option."""
    document = _document(body)
    pixels, images = document.pop("pixels", None), document.pop("images", None)
    if document:
        options = options.changed(document)
    # Python takes true for 1. A body without the letters u and f has neither true nor false, so no single number need
    # be checked. Searching for a letter takes a tenth of the time of searching for a word.
    plain = b"u" not in body and b"f" not in body
    if images is None:
        if pixels is None:
            raise BadInput("#/pixels", "missing; give pixels, one image, or images, a list of them")
        return _parsed(options, partial(one_image, pixels, options.scale, plain))
    if pixels is not None:
        raise BadInput("#/images", "not allowed with pixels; leave one of the two out")
    if not isinstance(images, list) or not 1 <= len(images) <= MAX_IMAGES:
        raise BadInput("#/images", f"not a list of images; give 1 to {MAX_IMAGES:,} of them")
    return _parsed(options, partial(many_images, images, options.scale, plain))


@readers.register("application/octet-stream")
def read_bytes(body: bytes, options: Options) -> ParsedBody:
    """Parse one byte per pixel, image after image; the answer to a single image is not a list."""
    return _parsed(options, partial(byte_images, body, options.scale))


@readers.register("application/x-npy")
def read_npy(body: bytes, options: Options) -> ParsedBody:
    """Parse an array of numbers in numpy's format: one image, or a list of them along the first axis."""
    return _parsed(options, partial(array_images, numbers_of(body), options.scale))


@readers.register("image/png")
def read_png(body: bytes, options: Options) -> ParsedBody:
    """Parse a picture of any size; it is brought to the data set's own form unless `canonical` is false."""
    return _picture(body, "PNG", options)


@readers.register("image/jpeg")
def read_jpeg(body: bytes, options: Options) -> ParsedBody:
    """Parse a picture of any size; it is brought to the data set's own form unless `canonical` is false."""
    return _picture(body, "JPEG", options)


def _parsed(options: Options, images: ImagesOf) -> ParsedBody:
    """Return a parsed body; its numbers are brought to the data set's own form only on request."""
    return ParsedBody(options, partial(in_canonical_form, images) if options.canonical else images)


def _picture(body: bytes, form: str, options: Options) -> ParsedBody:
    picture = opened(body, form)
    return ParsedBody(options, partial(picture_image, picture, options), picture.width * picture.height)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _lenient(body)
    if not isinstance(document, dict):
        raise BadInput("#", 'wrong type; give an object such as {"pixels": [784 numbers]}')
    return document


def _lenient(body: bytes) -> Any:
    """Parse JSON with NaN and numbers of any length, so that an error can name the place of the bad value."""
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise BadInput("#", not_json(error.pos)) from None
    except (ValueError, RecursionError):
        raise BadInput("#", "not valid JSON; use UTF-8, shorter numbers and less nesting") from None
