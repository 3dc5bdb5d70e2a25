"""Zero-wait batching: a question runs at once where nothing runs, and what has come meanwhile runs as one batch.

Nobody waits for a batch to fill: networks this small take less time than any wait would. The event loop gathers as long
as each turn of it brings more, which for a lone question is one empty turn, and runs what there is there and then where
that is short, in a thread where it is long.
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

from api.http.errors import Busy
from api.inputs.pixels import as_floats
from api.prediction.batch_result import Answered, BatchResult
from ml.prediction.predictor import MAX_BATCH

MAX_QUEUED = 8192  # images that wait, of all networks together: more is refused rather than kept waiting
INLINE_SECONDS = 0.002  # longer runs go to a thread, so that the event loop goes on answering

Run = Callable[[np.ndarray], BatchResult]
# What of a batch is counted, how many images ran, seconds waited, seconds taken, and images that wait now.
Ran = Callable[[BatchResult, int, float, float, int], None]

log = structlog.get_logger()


class Queue:
    """How many images, or whatever else is counted, wait in this process, and how many may."""

    def __init__(self, limit: int = MAX_QUEUED, what: str = "images") -> None:
        self.limit = limit
        self.what = what
        self.waiting = 0

    def enter(self, count: int) -> None:
        """Take places; Busy where there are too few."""
        if self.waiting + count > self.limit:
            raise Busy(f"{self.waiting} {self.what} wait for an answer already; try again shortly")
        self.waiting += count

    def leave(self, count: int) -> None:
        """Give places back."""
        self.waiting -= count


@dataclass(slots=True)
class _Question:
    pixels: np.ndarray
    answer: asyncio.Future[Answered]
    asked: float  # when, by perf_counter
    counted: bool  # whether its images are somebody's, and not copies made to explain an answer


class Batcher:
    """Answers for one version; used from one event loop."""

    def __init__(self, run: Run, seconds: float, queue: Queue, executor: Executor, ran: Ran) -> None:
        self._run = run
        self._ran = ran
        self._seconds = seconds  # of one image in a batch
        self._queue = queue
        self._executor = executor
        self._waiting: deque[_Question] = deque()
        self._running = False

    def ask(self, pixels: np.ndarray, counted: bool = True) -> asyncio.Future[Answered]:
        """The answer for pixels as `Images` has them, as it will come; Busy at once.

        What is not counted runs as all else does, and is no prediction to the meter.
        """
        self._queue.enter(len(pixels))
        loop = asyncio.get_running_loop()
        question = _Question(pixels, loop.create_future(), perf_counter(), counted)
        self._waiting.append(question)
        if not self._running:
            self._running = True
            loop.call_soon(self._gather, 0)
        return question.answer

    def _gather(self, before: int) -> None:
        """Run once a turn of the event loop has brought no more than the `before` that waited already, or a batch."""
        waiting = len(self._waiting)
        if before < waiting < MAX_BATCH:
            asyncio.get_running_loop().call_soon(self._gather, waiting)
        else:
            self._next()

    def _next(self) -> None:
        """Run what waits, as much of it as one batch holds."""
        questions = self._batch()
        images = sum(len(question.pixels) for question in questions)
        if images * self._seconds <= INLINE_SECONDS:
            self._deliver(questions, self._answers(questions))
            self._go_on()
        else:
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._executor, self._answers, questions)
            running.add_done_callback(lambda done: self._arrived(questions, done))

    def _batch(self) -> list[_Question]:
        questions = [self._waiting.popleft()]
        room = MAX_BATCH - len(questions[0].pixels)
        while self._waiting and len(self._waiting[0].pixels) <= room:
            question = self._waiting.popleft()
            room -= len(question.pixels)
            questions.append(question)
        return questions

    def _answers(self, questions: list[_Question]) -> list[Answered | Exception]:
        """An answer or an error for each question: one that cannot be answered fails alone."""
        began = perf_counter()
        try:
            batch = self._run(_together(questions))
        except Exception as error:  # whatever ONNX Runtime raises is told to whoever asked
            if len(questions) == 1:
                return [error]
            return [answer for question in questions for answer in self._answers([question])]
        self._tell(batch, questions, began - questions[0].asked, perf_counter() - began)
        bounds = pairwise(accumulate((len(question.pixels) for question in questions), initial=0))
        return [Answered(batch, start, stop) for start, stop in bounds]

    def _tell(self, batch: BatchResult, questions: list[_Question], waited: float, took: float) -> None:
        """Have a batch counted; whatever is wrong with that, its answers are delivered."""
        images = len(batch.labels)
        try:
            self._ran(_counted(batch, questions), images, waited, took, self._queue.waiting - images)
        except Exception as error:
            log.warning("could not note what was answered", error=str(error))

    def _arrived(self, questions: list[_Question], done: "asyncio.Future[list[Answered | Exception]]") -> None:
        self._deliver(questions, done.result())
        self._go_on()

    def _deliver(self, questions: list[_Question], answers: list[Answered | Exception]) -> None:
        for question, answer in zip(questions, answers, strict=True):
            self._queue.leave(len(question.pixels))
            if question.answer.done():  # whoever asked has gone
                continue
            if isinstance(answer, Exception):
                question.answer.set_exception(answer)
            else:
                question.answer.set_result(answer)

    def _go_on(self) -> None:
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._gather, 0)
        else:
            self._running = False


def _counted(batch: BatchResult, questions: list[_Question]) -> BatchResult:
    """What of a batch is counted."""
    if all(question.counted for question in questions):
        return batch
    counted = np.repeat([q.counted for q in questions], [len(q.pixels) for q in questions])
    return batch.part(np.flatnonzero(counted))


def _together(questions: list[_Question]) -> np.ndarray:
    """The pixels of all questions, float32 in 0..1."""
    if len(questions) == 1:
        return as_floats(questions[0].pixels)
    parts = [question.pixels for question in questions]
    if all(part.dtype == np.uint8 for part in parts):
        return as_floats(np.concatenate(parts))
    return np.concatenate([as_floats(part) for part in parts])
