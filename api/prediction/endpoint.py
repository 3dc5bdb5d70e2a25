"""`POST /predict` as a plain ASGI application: a framework spends more time on a body than the network does.

A request is processed in steps: `api.inputs.bodies` parses the body, `api.inputs.pixels` reads the images, `Roster`
finds the version, the version's `Batcher` predicts, and `responses` writes the answer.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from functools import lru_cache
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from api.http.errors import BadInput, Busy, answer_to
from api.inputs.bodies import ParsedBody, readers
from api.inputs.options import Options
from api.inputs.pixels import InputImages
from api.prediction.batch_result import NO_PREDICTIONS, BatchSlice
from api.prediction.batcher import as_floats
from api.prediction.metrics import count_read, count_request
from api.prediction.queue_limit import QueueLimit
from api.prediction.responses import response
from api.prediction.roster import Roster
from api.prediction.saliency import covered, saliency
from api.prediction.served import Served
from ml.datasets import datasets
from ml.layers import Shape

MAX_BODY_BYTES = 64 << 20  # of bodies in memory, over all requests: more is refused until some are answered
MAX_PICTURE_PIXELS = 128_000_000  # of pictures in decoding or waiting, a few seconds' work; more is refused
LARGE_BYTES = 1 << 15  # a larger body is parsed in a thread: as JSON it takes a millisecond or longer

T = TypeVar("T")

OK = {"type": "http.response.start", "status": 200}
JSON = (b"content-type", b"application/json")


class Predict:
    """The application that classifies images with the version that a request asks for."""

    def __init__(self, roster: Roster, executor: Executor, limit: int) -> None:
        self.roster = roster
        self.executor = executor
        self.limit = limit  # bytes of one body
        self.total_limit = max(MAX_BODY_BYTES, limit)
        self._bytes = 0  # of all bodies in memory
        self.pictures = QueueLimit(MAX_PICTURE_PIXELS, "pixels of pictures")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read a request, predict, answer, and count the request, errors too."""
        held = [0]
        try:
            if scope["method"] != "POST":
                raise HTTPException(405)
            media, options = _media_type(scope["headers"]), Options.of_query(scope["query_string"])
            answer = await self._answer(media, await self._body(receive, held), options)
        except ClientDisconnect:
            return
        except Exception as error:  # the boundary of a request
            refusal = answer_to(Request(scope), error)
            count_request(refusal.status_code)
            await refusal(scope, receive, send)
            return
        finally:
            self._bytes -= held[0]
        count_request(200)
        await send({**OK, "headers": [JSON, (b"content-length", b"%d" % len(answer))]})
        await send({"type": "http.response.body", "body": answer})

    async def _body(self, receive: Receive, held: list[int]) -> bytes:
        """Return the whole body, and count in `held` the bytes of it that are in memory."""
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
                raise HTTPException(
                    413, f"the body is larger than {self.limit:,} bytes, the limit of CHIFFRE_MAX_IMAGE_BYTES"
                )
            if self._bytes > self.total_limit:
                raise Busy("too many large bodies at once; try again shortly")
            if not message.get("more_body"):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _answer(self, media: str, body: bytes, options: Options) -> bytes:
        served, images, options = await self._read(media, body, options)
        # Free the body before the prediction is awaited: the numbers of 64 requests would fill the processor's cache.
        del body
        if images.several and options.explain:
            raise BadInput("?explain", "only a single image can be explained; send one, or leave explain out")
        predicted = await served.batcher.predict(images.pixels) if len(images.pixels) else NO_PREDICTIONS
        explained = await self._saliency(served, images, predicted) if options.explain else None
        return response(served, images, predicted, options, explained)

    async def _read(self, media: str, body: bytes, options: Options) -> tuple[Served, InputImages, Options]:
        """Return the version that is asked for, the images, and the options with those of the body."""
        began = perf_counter()
        is_long = media.startswith("image/") or len(body) > LARGE_BYTES
        read = readers[media]
        parsed = await self._in_thread(read, body, options) if is_long else read(body, options)
        options = parsed.options
        is_long = is_long or bool(options.canonical)
        dataset = None if options.version is not None else datasets.get(options.dataset)
        if dataset is None:  # only the version of a model, or of an uploaded data set, knows the shape
            served = await self.roster.served_for(options)
            shape = served.predictor.shape
            images = await self._decoded(parsed, shape) if is_long else parsed.images(shape)
        else:  # images first, so that their errors are reported even while no version is loaded
            shape = dataset.shape
            images = await self._decoded(parsed, shape) if is_long else parsed.images(shape)
            del parsed  # frees the decoded picture too
            served = await self.roster.served_for(options)
        count_read(perf_counter() - began)
        return served, images, options

    async def _decoded(self, parsed: ParsedBody, shape: Shape) -> InputImages:
        """Read the images of a body in a thread.

        Raises:
            Busy: if too many pixels of pictures are to be decoded already.
        """
        self.pictures.enter(parsed.pixels)
        try:
            return await self._in_thread(parsed.images, shape)
        finally:
            self.pictures.leave(parsed.pixels)

    async def _saliency(self, served: Served, images: InputImages, predicted: BatchSlice) -> list[list[float]]:
        """Return how much each pixel contributes to the label: predict copies of the image with patches covered."""
        (image,), (label,) = as_floats(images.pixels), predicted.labels
        batches, covered_probabilities = covered(image), []
        while (batch := await self._in_thread(next, batches, None)) is not None:
            covered_probabilities.append((await served.batcher.predict(batch, counted=False)).raw[:, label])
        whole = float(predicted.raw[0, label])
        return await self._in_thread(saliency, image.shape, whole, np.concatenate(covered_probabilities))

    def _in_thread(self, function: Callable[..., T], *arguments: Any) -> "asyncio.Future[T]":
        """Run a function in a thread and return its future result, so that the event loop stays free."""
        return asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)


def _media_type(headers: list[tuple[bytes, bytes]]) -> str:
    """Return the content type of the body.

    Raises:
        HTTPException: 415 if the body is compressed or no reader takes its type.
    """
    content_type = b""
    for name, value in headers:
        if name == b"content-type":
            content_type = value
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise HTTPException(415, "the body is compressed; send it uncompressed, without Content-Encoding")
    return _known_media_type(content_type)


@lru_cache(16)  # clients send few different types, and a header is small
def _known_media_type(content_type: bytes) -> str:
    media = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    if media not in readers:
        raise HTTPException(415, f"unsupported Content-Type; send one of {', '.join(readers)}")
    return media
