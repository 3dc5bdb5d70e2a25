"""The kinds of body that `/predict` reads; each is registered by its content type beside what reads it."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import orjson

from api.http.errors import BadInput
from api.inputs.npy import array_of
from api.inputs.options import Options
from api.inputs.pictures import at_size, grey, opened
from api.inputs.pixels import WHITE, InputImages, as_floats, many_images, of_array, one_image
from ml.canonical.canonical import Canonical, canonical
from ml.canonical.frame import form_of
from ml.layers import Shape
from ml.registry import Registry

MAX_IMAGES = 1024  # in one body

Open = Callable[[Shape], InputImages]  # the images, once it is known which shape the network takes


@dataclass(slots=True)
class ReadBody:
    """A body that was read: the options, with what the body itself says, and the images yet to be opened, once."""

    options: Options
    images: Open
    pixels: int = 0  # of a picture: how many are to be decoded


Reader = Callable[[bytes, Options], ReadBody]
readers: Registry[Reader] = Registry("content type")


@readers.register("application/json")
def read_json(body: bytes, options: Options) -> ReadBody:
    """`pixels`, one image, or `images`, up to MAX_IMAGES of them, and any option."""
    document = _document(body)
    pixels, images = document.pop("pixels", None), document.pop("images", None)
    if document:
        options = options.changed(document)
    # Python takes true for 1; a body without these two letters has neither true nor false, and no number need be looked
    # at. Looking for a letter takes a tenth of the time that looking for a word does.
    plain = b"u" not in body and b"f" not in body
    if images is None:
        if pixels is None:
            raise BadInput("#/pixels", "Field required")
        return ReadBody(options, lambda shape: _canonical(one_image(pixels, shape, options.scale, plain), options))
    if pixels is not None:
        raise BadInput("#/images", "give either pixels or images")
    if not isinstance(images, list) or not 1 <= len(images) <= MAX_IMAGES:
        raise BadInput("#/images", f"a list of 1 to {MAX_IMAGES} images is needed")
    return ReadBody(options, lambda shape: _canonical(many_images(images, shape, options.scale, plain), options))


@readers.register("application/octet-stream")
def read_bytes(body: bytes, options: Options) -> ReadBody:
    """One byte a pixel, image after image; a single image is answered by itself, not as a list of one."""

    def images(shape: Shape) -> InputImages:
        features = prod(shape)
        if not body or len(body) % features:
            raise BadInput("#", f"{features} bytes an image are needed, and the body has {len(body)}")
        rows = _few(np.frombuffer(body, np.uint8).reshape(-1, features))
        return _canonical(of_array(rows, shape, options.scale, several=len(rows) > 1), options)

    return ReadBody(options, images)


@readers.register("application/x-npy")
def read_npy(body: bytes, options: Options) -> ReadBody:
    """An array of numbers in numpy's format: one image, or a list of them along the first axis."""
    array = npy(body)

    def images(shape: Shape) -> InputImages:
        rows, several = rows_of(array, shape)
        return _canonical(of_array(_few(rows), shape, options.scale, several), options)

    return ReadBody(options, images)


@readers.register("image/png")
def read_png(body: bytes, options: Options) -> ReadBody:
    """A picture of any size, brought to the data set's own form unless that is switched off."""
    return _picture(body, "PNG", options)


@readers.register("image/jpeg")
def read_jpeg(body: bytes, options: Options) -> ReadBody:
    """A picture of any size, brought to the data set's own form unless that is switched off."""
    return _picture(body, "JPEG", options)


def _picture(body: bytes, form: str, options: Options) -> ReadBody:
    picture = opened(body, form)

    def images(shape: Shape) -> InputImages:
        if options.canonical is False or shape[0] != 1:
            return of_array(at_size(picture, shape).reshape(1, -1), shape, options.scale or WHITE, several=False)
        found = canonical(grey(picture), form_of(shape))
        return of_array(found.pixels.reshape(1, -1), shape, WHITE, several=False).reported([_told(found)])

    return ReadBody(options, images, picture.width * picture.height)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = _lenient(body)
    if not isinstance(document, dict):
        raise BadInput("#", 'an object is needed, such as {"pixels": [784 numbers]}')
    return document


def _lenient(body: bytes) -> Any:
    """JSON with NaN and numbers of any length, so that what is wrong can be named by its place."""
    try:
        return json.loads(body)
    except json.JSONDecodeError as error:
        raise BadInput("#", f"not valid JSON: {error.msg}") from None
    except (ValueError, RecursionError):
        raise BadInput("#", "not valid JSON: no text in UTF-8, a number too long, or nested too deeply") from None


def rows_of(array: np.ndarray, shape: Shape) -> tuple[np.ndarray, bool]:
    """An array as a row an image, and whether it is a list of images; BadInput where it does not fit the shape."""
    several = array.ndim > 1 and array.shape not in (shape, shape[1:])
    rows = array.reshape(len(array), -1) if several and len(array) else array.reshape(1, -1)
    if rows.shape[1] != prod(shape):
        raise BadInput("#", f"an array of {prod(shape)} numbers an image is needed, not {list(array.shape)}")
    return rows, several


def npy(body: bytes) -> np.ndarray:
    """The array of numbers of an npy file: uint8 as it is, others as float64."""
    array = array_of(body, "uif")
    return array if array.dtype == np.uint8 else array.astype(np.float64)


def _few(rows: np.ndarray) -> np.ndarray:
    if len(rows) > MAX_IMAGES:
        raise BadInput("#", f"at most {MAX_IMAGES} images at once, not {len(rows)}")
    return rows


def _canonical(images: InputImages, options: Options) -> InputImages:
    """The images in the data set's own form, where that was asked for."""
    if not options.canonical or not len(images.pixels) or images.pixels.shape[1] != 1:
        return images
    greys = np.rint(as_floats(images.pixels)[:, 0] * WHITE).astype(np.uint8)
    found = [canonical(grey, form_of(images.pixels.shape)) for grey in greys]
    pixels = np.stack([each.pixels for each in found])[:, None] / np.float32(WHITE)
    return images.reported([_told(each) for each in found], pixels)


def _told(found: Canonical) -> dict[str, Any]:
    """What was changed, and the pixels that the network is fed, 0 to 255."""
    return {**asdict(found.report), "pixels": found.pixels.tolist()}
