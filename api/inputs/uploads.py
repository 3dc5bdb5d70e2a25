"""Images that are uploaded to be classified by the worker: read, checked, and brought to the form it takes."""

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

MAX_LINES = 65_536  # of a JSONL file; as many usable images would not fit into a body
MAX_ID = 200  # characters
MAX_NAMES = 60  # characters of the names of classes that an error tells
PART = 1024  # images that are looked at together, so that only so many are floats in memory
FIELDS = {"pixels", "id", "label"}

Reader = Callable[[bytes, Shape, tuple[str, ...]], ImageSet]
readers: Registry[Reader] = Registry("content type")


class Uploads:
    """The bodies that are in memory, or on disk: over all requests no more than so many bytes.

    In memory each is held about six times until it is stored or answered; what exceeds the limit is put off.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._bytes = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """A whole body, counted while it is in use; Busy where too much is in memory already."""
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
        """A whole body on disk, counted while it is in use; Busy where too much is there already."""
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
    """A file of this machine's temporary folder; StorageFull where there is no room for it, also as it is closed."""
    try:
        with tempfile.TemporaryFile() as file:
            yield file
    except OSError as error:
        if error.errno not in FULL:
            raise
        place = f"the temporary folder {tempfile.gettempdir()} for an upload ({error.strerror})"
        raise StorageFull(f"there is no room in {place}; make some, or name another folder with TMPDIR") from error


def refuse_compressed(request: Request) -> None:
    """An answer 415 to a body that is compressed: nobody knows how large it would be."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "the body is compressed; send it as it is, without Content-Encoding")


def kind_of(request: Request, known: set[str]) -> str:
    """The content type of a body that can be read; an answer 415 where it cannot."""
    refuse_compressed(request)
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media not in known:
        raise HTTPException(415, f"the content type is none of {', '.join(sorted(known))}; name the one that was sent")
    return media


@readers.register("application/x-npy")
def read_npy(body: bytes, shape: Shape, classes: tuple[str, ...]) -> ImageSet:
    """An array of numbers in numpy's format: images along the first axis."""
    rows, _ = rows_of(numbers_of(body), shape)
    errors: dict[int, str] = {}
    pixels = []
    for first in range(0, len(rows), PART):
        images = of_array(rows[first : first + PART], shape, scale=None, several=True)
        errors |= {first + place: detail for place, detail in images.errors.items()}
        pixels.append(compact(images.pixels))
    _check_usable(errors, len(rows))
    places = np.setdiff1d(np.arange(len(rows)), np.fromiter(errors, np.int64))
    return ImageSet(together(pixels), places, np.full(len(places), UNKNOWN), errors)


@readers.register("application/jsonl")
@readers.register("application/x-ndjson")
def read_jsonl(body: bytes, shape: Shape, classes: tuple[str, ...]) -> ImageSet:
    """An object a line: `pixels`, and if you like `id` and `label`. A line that cannot be used is told in its place."""
    labels = {name: label for label, name in enumerate(classes)}
    lines = _Lines(shape, labels)
    for place, line in enumerate(io.BytesIO(body)):
        if place == MAX_LINES:
            raise BadInput("#", f"at most {MAX_LINES} lines; send the others as another job")
        lines.read(place, line)
    return lines.images()


class _Lines:
    """What the lines so far hold."""

    def __init__(self, shape: Shape, labels: dict[str, int]) -> None:
        self.shape = shape
        self.known = labels  # by class name
        self.errors: dict[int, str] = {}
        self.ids: dict[int, str] = {}
        self._places: list[int] = []
        self._labels: list[int] = []
        self._parts: list[np.ndarray] = []
        self._waiting: list[np.ndarray] = []  # pixels that are no part yet

    def read(self, place: int, line: bytes) -> None:
        """The next line."""
        try:
            fields = _fields(line)
            if fields.get("id") is not None:
                self.ids[place] = _id(fields["id"])
            label = _label(fields["label"], self.known) if fields.get("label") is not None else UNKNOWN
            plain = b"u" not in line and b"f" not in line  # neither true nor false, which Python takes for 1 and 0
            pixels = one_image(fields.get("pixels"), None, plain, self.shape).pixels
        except BadInput as error:
            first = error.errors[0]
            self.errors[place] = f"{first.pointer}: {first.detail}"
            return
        self._places.append(place)
        self._labels.append(label)
        self._waiting.append(pixels)
        if len(self._waiting) == PART:
            self._pack()

    def images(self) -> ImageSet:
        """All of them; BadInput where there is none that can be used."""
        _check_usable(self.errors, len(self.errors) + len(self._places))
        self._pack()
        places, labels = np.array(self._places, np.int64), np.array(self._labels, np.int64)
        return ImageSet(together(self._parts), places, labels, self.errors, self.ids)

    def _pack(self) -> None:
        if self._waiting:
            self._parts.append(compact(np.concatenate(self._waiting)))
            self._waiting = []


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise BadInput("#", "not valid JSON") from None
    if not isinstance(fields, dict):
        raise BadInput("#", 'an object is needed, such as {"pixels": [784 numbers]}')
    if not fields.keys() <= FIELDS:
        raise BadInput("#", f"an object holds {', '.join(sorted(FIELDS))} and nothing else")
    return fields


def _id(value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_ID:
        raise BadInput("#/id", f"a text of at most {MAX_ID} characters is needed")
    if len(orjson.dumps(value)) > 4 * MAX_ID + 2:  # what is kept of all lines must fit into the header of a file
        raise BadInput("#/id", "a text of so many control characters cannot be kept; leave some out")
    return value


def _label(value: Any, known: dict[str, int]) -> int:
    """The class of a name; digits may be given as numbers."""
    name = str(value) if type(value) is int else value
    if not isinstance(name, str) or name not in known:
        raise BadInput("#/label", f"one of the classes is needed: {_beginning(', '.join(known))}")
    return known[name]


def _beginning(names: str) -> str:
    """As much of a text as is told of every line."""
    return names if len(names) <= MAX_NAMES else f"{names[:MAX_NAMES]}…"


def _check_usable(errors: dict[int, str], count: int) -> None:
    """BadInput where not one image can be used."""
    if count == 0:
        raise BadInput("#", "there is no image in the body")
    if len(errors) == count:
        first, *more = _first_errors(errors)
        raise BadInput(first.pointer, first.detail, *more)


def _first_errors(errors: dict[int, str]) -> Iterator[FieldError]:
    for place, detail in list(errors.items())[:MAX_ERRORS]:
        yield FieldError(pointer=f"#/{place}", detail=detail)
