"""`POST /predict` as a plain ASGI application: what a framework does for a body costs more here than the network."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import lru_cache
from time import perf_counter
from typing import Any, TypeVar, cast

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from api.http.errors import BadInput, Busy, answer_to
from api.inputs.bodies import ReadBody, readers
from api.inputs.options import Options
from api.inputs.pixels import InputImages, as_floats
from api.prediction import responses
from api.prediction.batch_result import Answered
from api.prediction.batcher import Queue
from api.prediction.metrics import was_answered, was_read
from api.prediction.roster import Roster
from api.prediction.saliency import covered, saliency
from api.prediction.served import Served
from ml.datasets import Dataset, datasets
from ml.layers import Shape

MAX_BYTES_AT_ONCE = 64 << 20  # of bodies in memory, over all requests: more is refused until some are answered
MAX_PIXELS_AT_ONCE = 128_000_000  # of pictures that wait to be decoded or are: more is refused; a few seconds' work
LARGE_BYTES = 1 << 15  # a body of more is read in a thread: as JSON it takes a millisecond or longer

T = TypeVar("T")

OK = {"type": "http.response.start", "status": 200}
JSON = (b"content-type", b"application/json")


class Predict:
    """Answers images with the network that is asked for."""

    def __init__(self, roster: Roster, executor: Executor, limit: int) -> None:
        self.roster = roster
        self.executor = executor
        self.limit = limit  # bytes of one body
        self.at_once = max(MAX_BYTES_AT_ONCE, limit)
        self._bytes = 0  # of all bodies that are in memory
        self.pictures = Queue(MAX_PIXELS_AT_ONCE, "pixels of pictures")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, ask, answer, and count; problems too."""
        held = [0]
        try:
            if scope["method"] != "POST":
                raise HTTPException(405)
            kind, options = _kind(scope["headers"]), Options.of_query(scope["query_string"])
            answer = await self._answer(kind, await self._body(receive, held), options)
        except ClientDisconnect:
            return
        except Exception as error:  # the boundary of a request
            response = answer_to(Request(scope), error)
            was_answered(response.status_code)
            await response(scope, receive, send)
            return
        finally:
            self._bytes -= held[0]
        was_answered(200)
        await send({**OK, "headers": [JSON, (b"content-length", b"%d" % len(answer))]})
        await send({"type": "http.response.body", "body": answer})

    async def _body(self, receive: Receive, held: list[int]) -> bytes:
        """The whole body; what is held of it is counted in `held` as it comes."""
        chunks: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk = message.get("body", b"")
            chunks.append(chunk)
            held[0] += len(chunk)
            self._bytes += len(chunk)
            if held[0] > self.limit:
                detail = f"the body is larger than {self.limit} bytes, what CHIFFRE_MAX_IMAGE_BYTES allows"
                raise HTTPException(413, detail)
            if self._bytes > self.at_once:
                raise Busy("too many large bodies at once; try again shortly")
            if not message.get("more_body"):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _answer(self, kind: str, body: bytes, options: Options) -> bytes:
        served, images, options = await self._read(kind, body, options)
        del body  # what was read goes before the answer is waited for: 64 lists of numbers would push all else out of
        # the processor's cache
        if images.several:
            return await self._several(served, images, options)
        answered = await served.batcher.ask(images.pixels)
        extra = {"saliency": await self._saliency(served, images, answered)} if options.explain else {}
        return responses.single(served, images, answered, options, extra)

    async def _read(self, kind: str, body: bytes, options: Options) -> tuple[Served, InputImages, Options]:
        """Who answers, the images, and the options with what the body itself says."""
        began = perf_counter()
        is_long = kind.startswith("image/") or len(body) > LARGE_BYTES
        asked = await self._in_thread(readers[kind], body, options) if is_long else readers[kind](body, options)
        options = asked.options
        is_long = is_long or bool(options.canonical)
        # What is wrong with images is told even while nobody can answer; only of a version the shape must be asked for.
        brought = datasets.get(options.dataset)  # an uploaded one's version must be asked for as well
        known = options.version is None and brought is not None
        served = None if known else self.roster.look(options) or await self.roster.served_for(options)
        shape = served.predictor.shape if served is not None else cast("Dataset", brought).shape
        images = await self._opened(asked, shape) if is_long else asked.images(shape)
        del asked  # and with it all that a picture was decoded to
        if served is None:
            served = self.roster.look(options) or await self.roster.served_for(options)
        was_read(perf_counter() - began)
        return served, images, options

    async def _opened(self, asked: ReadBody, shape: Shape) -> InputImages:
        """The images of a body, opened in a thread; Busy where too much is to be decoded already."""
        self.pictures.enter(asked.pixels)
        try:
            return await self._in_thread(asked.images, shape)
        finally:
            self.pictures.leave(asked.pixels)

    async def _several(self, served: Served, images: InputImages, options: Options) -> bytes:
        if options.explain:
            raise BadInput("?explain", "one image at a time can be explained")
        if not len(images.pixels):
            return responses.unusable(served, images)
        answered = await served.batcher.ask(images.pixels)
        return responses.several(served, images, answered, options)

    async def _saliency(self, served: Served, images: InputImages, answered: Answered) -> list[list[float]]:
        (image,), (label,) = as_floats(images.pixels), answered.labels
        batches, parts = covered(image), []
        while (batch := await self._in_thread(next, batches, None)) is not None:
            parts.append((await served.batcher.ask(batch, counted=False)).raw[:, label])
        return await self._in_thread(saliency, image.shape, float(answered.raw[0, label]), np.concatenate(parts))

    def _in_thread(self, function: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        """What a function will return; what takes long does not keep the event loop from others."""
        return asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)


def _kind(headers: list[tuple[bytes, bytes]]) -> str:
    """The content type of a body that can be read."""
    kind = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise HTTPException(415, "the body is compressed; send it as it is, without Content-Encoding")
    return _media(kind)


@lru_cache(16)  # few kinds are ever sent, and a header is small
def _media(kind: bytes) -> str:
    media = kind.partition(b";")[0].strip().lower().decode("latin-1")
    if media not in readers:
        raise HTTPException(415, f"the content type is none of {', '.join(readers)}; name the one that was sent")
    return media
