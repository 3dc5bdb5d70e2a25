"""Zero-wait batching: a request runs at once if its model is idle; requests that arrive meanwhile run as one batch.

No request waits for a batch to fill: networks this small take less time than any wait would. The event loop gathers
requests as long as each of its turns brings more, which for a lone request is one empty turn. A short batch then runs
in the event loop itself, a long one in a thread.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import accumulate, pairwise
from time import perf_counter

import numpy as np
import structlog

from api.prediction.batch_result import BatchResult, BatchSlice
from api.prediction.queue_limit import QueueLimit
from ml.prediction.predictor import MAX_BATCH

INLINE_SECONDS = 0.002  # longer batches run in a thread, so that the event loop stays free
WHITE = np.float32(255)

Run = Callable[[np.ndarray], BatchResult]
# Takes the predictions to count, the images that ran, seconds waited, seconds computed, and the images that wait now.
OnBatch = Callable[[BatchResult, int, float, float, int], None]

log = structlog.get_logger()


@dataclass(slots=True)
class _Request:
    pixels: np.ndarray
    result: asyncio.Future[BatchSlice]
    arrived: float  # by perf_counter
    counted: bool  # False for copies of an image, made to explain its prediction


class Batcher:
    """Runs one version's predictions in batches; used from one event loop."""

    def __init__(self, run: Run, seconds: float, queue: QueueLimit, executor: Executor, on_batch: OnBatch) -> None:
        self._run = run
        self._on_batch = on_batch
        self._seconds = seconds  # of one image in a batch
        self._queue = queue
        self._executor = executor
        self._waiting: deque[_Request] = deque()
        self._running = False

    def predict(self, pixels: np.ndarray, counted: bool = True) -> asyncio.Future[BatchSlice]:
        """Queue images and return their future predictions.

        Args:
            pixels: images as `InputImages` holds them, at least one.
            counted: whether the images are predictions to the meter; they run alike.

        Raises:
            Busy: at once, if too many images are waiting.
        """
        self._queue.enter(len(pixels))
        loop = asyncio.get_running_loop()
        request = _Request(pixels, loop.create_future(), perf_counter(), counted)
        self._waiting.append(request)
        if not self._running:
            self._running = True
            loop.call_soon(self._gather, 0)
        return request.result

    def _gather(self, before: int) -> None:
        """Run a batch once it is full, or once a turn of the event loop adds no request to the `before` of the last."""
        waiting = len(self._waiting)
        if before < waiting < MAX_BATCH:
            asyncio.get_running_loop().call_soon(self._gather, waiting)
        else:
            self._next()

    def _next(self) -> None:
        """Run as many waiting requests as one batch holds."""
        requests = self._batch()
        images = sum(len(request.pixels) for request in requests)
        if images * self._seconds <= INLINE_SECONDS:
            self._deliver(requests, self._results(requests))
            self._go_on()
        else:
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._executor, self._results, requests)
            running.add_done_callback(lambda done: self._finish(requests, done))

    def _batch(self) -> list[_Request]:
        requests = [self._waiting.popleft()]
        room = MAX_BATCH - len(requests[0].pixels)
        while self._waiting and len(self._waiting[0].pixels) <= room:
            request = self._waiting.popleft()
            room -= len(request.pixels)
            requests.append(request)
        return requests

    def _results(self, requests: list[_Request]) -> list[BatchSlice | Exception]:
        """Return a result or an error for each request; if a batch fails, each of its requests is run alone."""
        began = perf_counter()
        try:
            batch = self._run(_joined(requests))
        except Exception as error:  # any error of ONNX Runtime goes to the request that caused it
            if len(requests) == 1:
                return [error]
            return [result for request in requests for result in self._results([request])]
        self._count(batch, requests, began - requests[0].arrived, perf_counter() - began)
        bounds = pairwise(accumulate((len(request.pixels) for request in requests), initial=0))
        return [BatchSlice(batch, start, stop) for start, stop in bounds]

    def _count(self, batch: BatchResult, requests: list[_Request], waited: float, took: float) -> None:
        """Report a batch to the meter; if that fails, its results are delivered all the same."""
        images = len(batch.labels)
        try:
            self._on_batch(_counted(batch, requests), images, waited, took, self._queue.waiting - images)
        except Exception as error:
            log.warning("could not count a batch of predictions", error=str(error))

    def _finish(self, requests: list[_Request], done: "asyncio.Future[list[BatchSlice | Exception]]") -> None:
        self._deliver(requests, done.result())
        self._go_on()

    def _deliver(self, requests: list[_Request], results: list[BatchSlice | Exception]) -> None:
        for request, result in zip(requests, results, strict=True):
            self._queue.leave(len(request.pixels))
            if request.result.done():  # the client has gone
                continue
            if isinstance(result, Exception):
                request.result.set_exception(result)
            else:
                request.result.set_result(result)

    def _go_on(self) -> None:
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._gather, 0)
        else:
            self._running = False


def _counted(batch: BatchResult, requests: list[_Request]) -> BatchResult:
    """Return the predictions of a batch that are to be counted."""
    if all(request.counted for request in requests):
        return batch
    counted = np.repeat([request.counted for request in requests], [len(request.pixels) for request in requests])
    return batch.subset(np.flatnonzero(counted))


def _joined(requests: list[_Request]) -> np.ndarray:
    """Return the pixels of all requests, float32 in 0..1."""
    if len(requests) == 1:
        return as_floats(requests[0].pixels)
    arrays = [request.pixels for request in requests]
    if all(pixels.dtype == np.uint8 for pixels in arrays):
        return as_floats(np.concatenate(arrays))
    return np.concatenate([as_floats(pixels) for pixels in arrays])


def as_floats(pixels: np.ndarray) -> np.ndarray:
    """Return pixels as float32 in 0..1; bytes are divided here, all of a batch at once."""
    if pixels.dtype != np.uint8:
        return pixels
    divided: np.ndarray = np.divide(pixels, WHITE, dtype=np.float32)
    return divided
