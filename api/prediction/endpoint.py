"""`POST /predict` as a plain ASGI application: what a framework does for a body costs more here than the network."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from time import perf_counter
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from api.errors import BadInput, Busy, answer_to
from api.meter import requests_of, was_read
from api.prediction import answers
from api.prediction.answered import Answered
from api.prediction.bodies import readers
from api.prediction.options import Options
from api.prediction.pixels import Images
from api.prediction.saliency import covered, saliency
from api.served import Served
from api.serving import Roster
from ml.datasets import datasets

MAX_BYTES_AT_ONCE = 64 << 20  # of bodies in memory, over all requests: more is refused until some are answered
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
        self._bytes = 0  # of all bodies that are in memory

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, ask, answer, and count; problems too."""
        try:
            await self._respond(scope, receive, send)
        except Exception as error:  # the boundary of a request
            response = answer_to(Request(scope), error)
            requests_of(response.status_code).inc()
            await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise HTTPException(405)
        kind = _kind(scope["headers"])
        options = Options.of_query(scope["query_string"])
        held = [0]
        try:
            body = await self._body(receive, held)
            answer = await self._answer(kind, body, options)
        except ClientDisconnect:
            return
        finally:
            self._bytes -= held[0]
        requests_of(200).inc()
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
            if self._bytes > MAX_BYTES_AT_ONCE:
                raise Busy("too many large bodies at once; try again shortly")
            if not message.get("more_body"):
                return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _answer(self, kind: str, body: bytes, options: Options) -> bytes:
        began = perf_counter()
        is_long = kind.startswith("image/") or len(body) > LARGE_BYTES
        asked = await self._do(is_long, readers[kind], body, options)
        options = asked.options
        is_long = is_long or bool(options.canonical)
        if options.version is None:  # what is wrong with the images is told even while nobody can answer
            images = await self._do(is_long, asked.images, datasets[options.dataset].shape)
            served = await self.roster.served_for(options)
        else:
            served = await self.roster.served_for(options)
            images = await self._do(is_long, asked.images, served.predictor.shape)
        was_read(perf_counter() - began)
        if images.several:
            return await self._several(served, images, options)
        answered = await served.batcher.ask(images.pixels)
        extra = {"saliency": await self._saliency(served, images, answered)} if options.explain else {}
        return answers.single(served, images, answered, options, extra)

    async def _several(self, served: Served, images: Images, options: Options) -> bytes:
        if options.explain:
            raise BadInput("?explain", "one image at a time can be explained")
        if not len(images.pixels):
            return answers.unusable(served, images)
        answered = await served.batcher.ask(images.pixels)
        return answers.several(served, images, answered, options)

    async def _saliency(self, served: Served, images: Images, answered: Answered) -> list[list[float]]:
        (image,), (label,) = images.pixels, answered.labels
        parts = await served.batcher.ask(await self._do(True, covered, image))
        return await self._do(True, saliency, image.shape, float(answered.raw[0, label]), parts.raw[:, label])

    async def _do(self, in_thread: bool, function: Callable[..., T], *arguments: Any) -> T:
        """What a function returns; what takes long does not keep the event loop from others."""
        if not in_thread:
            return function(*arguments)
        return await asyncio.get_running_loop().run_in_executor(self.executor, function, *arguments)


def _kind(headers: list[tuple[bytes, bytes]]) -> str:
    """The content type of a body that can be read."""
    kind = b""
    for name, value in headers:
        if name == b"content-type":
            kind = value
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise HTTPException(415, "the body is compressed; send it as it is, without Content-Encoding")
    media = kind.partition(b";")[0].strip().lower().decode("latin-1")
    if media not in readers:
        raise HTTPException(415, f"the content type is none of {', '.join(readers)}; name the one that was sent")
    return media
