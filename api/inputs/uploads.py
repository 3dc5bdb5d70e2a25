"""Images that are uploaded for a worker to classify: read, checked, and brought to the form that it takes."""

import io
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import IO, Any

import numpy as np
import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request

from api.http.errors import BadInput, Busy
from api.http.problems import MAX_ERRORS, FieldError
from api.inputs.npy import numbers_of
from api.inputs.pixels import of_array, one_image, rows_of
from ml.layers import Shape
from ml.registry import Registry
from worker.artifacts.folder import FULL
from worker.errors import StorageFull
from worker.prediction.image_sets import UNKNOWN, ImageSet, compact, together

MAX_LINES = 65_536  # of a JSONL file; more than fit into a body as usable images
MAX_ID = 200  # characters
MAX_NAMES = 60  # characters of class names that an error lists
CHUNK = 1024  # images that are read together, so that only these are floats in memory
FIELDS = {"pixels", "id", "label"}

Reader = Callable[[bytes, Shape, tuple[str, ...]], ImageSet]
readers: Registry[Reader] = Registry("content type")


class BodyBudget:
    """A limit on the bytes of bodies in memory, or on disk, over all requests; a request beyond it is refused.

    In memory a body is held about six times until it is stored or answered.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._bytes = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Yield a whole body, counted while it is in use.

        Raises:
            Busy: if too much is in memory already.
        """
        chunks, held = [], 0
        try:
            async for chunk in request.stream():
                chunks.append(chunk)
                held += len(chunk)
                self._bytes += len(chunk)
                if self._bytes > self.limit:
                    raise Busy("too many large bodies at once; try again shortly")
            body = b"".join(chunks)
            chunks.clear()
            yield body
        finally:
            self._bytes -= held

    @asynccontextmanager
    async def file(self, request: Request) -> AsyncIterator[IO[bytes]]:
        """Yield a whole body as a temporary file, counted while it is in use.

        Raises:
            Busy: if too much is on disk already.
        """
        held = 0
        with _temporary_file() as file:
            try:
                async for chunk in request.stream():
                    held += len(chunk)
                    self._bytes += len(chunk)
                    if self._bytes > self.limit:
                        raise Busy("too many large bodies at once; try again shortly")
                    file.write(chunk)
                file.seek(0)
                yield file
            finally:
                self._bytes -= held


@contextmanager
def _temporary_file() -> Iterator[IO[bytes]]:
    """Yield a file in the temporary folder.

    Raises:
        StorageFull: if there is no room for it, while it is written or as it is closed.
    """
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        if error.errno not in FULL:
            raise
        place = f"the temporary folder {tempfile.gettempdir()} for an upload ({error.strerror})"
        raise StorageFull(f"no room in {place}; make some, or name another folder with TMPDIR") from error


def refuse_compressed(request: Request) -> None:
    """Refuse a compressed body, whose unpacked size is unknown.

    Raises:
        HTTPException: 415 if it is compressed.
    """
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "the body is compressed; send it uncompressed, without Content-Encoding")


def kind_of(request: Request, known: set[str]) -> str:
    """Return the content type of a body.

    Raises:
        HTTPException: 415 if the type is not known or the body is compressed.
    """
    refuse_compressed(request)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in known:
        raise HTTPException(415, f"unsupported Content-Type; send one of {', '.join(sorted(known))}")
    return media


@readers.register("application/x-npy")
def read_npy(body: bytes, shape: Shape, classes: tuple[str, ...]) -> ImageSet:
    """Read an array of numbers in numpy's format: images along the first axis."""
    rows, _ = rows_of(numbers_of(body), shape)
    errors: dict[int, str] = {}
    pixels = []
    for first in range(0, len(rows), CHUNK):
        images = of_array(rows[first : first + CHUNK], shape, scale=None, several=True)
        errors |= {first + place: detail for place, detail in images.errors.items()}
        pixels.append(compact(images.pixels))
    _check_usable(errors, len(rows))
    places = np.setdiff1d(np.arange(len(rows)), np.fromiter(errors, np.int64))
    return ImageSet(together(pixels), places, np.full(len(places), UNKNOWN), errors)


@readers.register("application/jsonl")
@readers.register("application/x-ndjson")
def read_jsonl(body: bytes, shape: Shape, classes: tuple[str, ...]) -> ImageSet:
    """Read one object per line: `pixels`, and optionally `id` and `label`; an unusable line gets an error."""
    labels = {name: label for label, name in enumerate(classes)}
    lines = _Lines(shape, labels)
    for place, line in enumerate(io.BytesIO(body)):
        if place == MAX_LINES:
            raise BadInput("#", f"too many lines; send at most {MAX_LINES:,}, and the others as another job")
        lines.read(place, line)
    return lines.images()


class _Lines:
    """The images of the lines read so far."""

    def __init__(self, shape: Shape, labels: dict[str, int]) -> None:
        self.shape = shape
        self.known = labels  # by class name
        self.errors: dict[int, str] = {}
        self.ids: dict[int, str] = {}
        self._places: list[int] = []
        self._labels: list[int] = []
        self._packed: list[np.ndarray] = []
        self._waiting: list[np.ndarray] = []  # pixels that are not packed yet

    def read(self, place: int, line: bytes) -> None:
        """Read the next line."""
        try:
            fields = _fields(line)
            if fields.get("id") is not None:
                self.ids[place] = _id(fields["id"])
            label = _label(fields["label"], self.known) if fields.get("label") is not None else UNKNOWN
            plain = b"u" not in line and b"f" not in line  # neither true nor false, which Python takes for 1 and 0
            pixels = one_image(fields.get("pixels"), None, plain, self.shape).pixels
        except BadInput as error:
            self.errors[place] = error.in_one_line()
            return
        self._places.append(place)
        self._labels.append(label)
        self._waiting.append(pixels)
        if len(self._waiting) == CHUNK:
            self._pack()

    def images(self) -> ImageSet:
        """Return the images of all lines.

        Raises:
            BadInput: if none is usable.
        """
        _check_usable(self.errors, len(self.errors) + len(self._places))
        self._pack()
        places, labels = np.array(self._places, np.int64), np.array(self._labels, np.int64)
        return ImageSet(together(self._packed), places, labels, self.errors, self.ids)

    def _pack(self) -> None:
        if self._waiting:
            self._packed.append(compact(np.concatenate(self._waiting)))
            self._waiting = []


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise BadInput("#", "not valid JSON; give one object per line") from None
    if not isinstance(fields, dict):
        raise BadInput("#", 'wrong type; give an object such as {"pixels": [784 numbers]}')
    if not fields.keys() <= FIELDS:
        raise BadInput("#", f"unknown field; known fields are {', '.join(sorted(FIELDS))}")
    return fields


def _id(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_ID:
        raise BadInput("#/id", f"not an id; give a string of at most {MAX_ID} characters")
    if len(orjson.dumps(value)) > 4 * MAX_ID + 2:  # the ids of all lines must fit into the header of a file
        raise BadInput("#/id", "too many control characters; leave some out")
    return value


def _label(value: Any, known: dict[str, int]) -> int:
    """Return the class of a name; digits may be given as numbers."""
    name = str(value) if type(value) is int else value
    if not isinstance(name, str) or name not in known:
        raise BadInput("#/label", f"unknown class; use one of {_beginning(', '.join(known))}")
    return known[name]


def _beginning(names: str) -> str:
    """Shorten a text that stands in the error of every line."""
    return names if len(names) <= MAX_NAMES else f"{names[:MAX_NAMES]}…"


def _check_usable(errors: dict[int, str], count: int) -> None:
    """Refuse a body without a usable image.

    Raises:
        BadInput: if there is none.
    """
    if count == 0:
        raise BadInput("#", "the body holds no image; send at least one")
    if len(errors) == count:
        first, *more = _first_errors(errors)
        raise BadInput(first.pointer, first.detail, *more)


def _first_errors(errors: dict[int, str]) -> Iterator[FieldError]:
    for place, detail in list(errors.items())[:MAX_ERRORS]:
        yield FieldError(pointer=f"#/{place}", detail=detail)
