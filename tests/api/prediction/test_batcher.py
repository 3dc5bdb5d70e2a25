"""Batching: requests run together, and an error affects only its own request."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from api.http.errors import Busy
from api.prediction.batch_result import BatchResult, BatchSlice
from api.prediction.batcher import INLINE_SECONDS, Batcher
from api.prediction.queue_limit import QueueLimit
from ml.prediction.predictor import MAX_BATCH

POISON = 13  # a pixel that makes the network below fail


class Network:
    """A network that predicts the first pixel of each image as its class, and records the size of each batch."""

    def __init__(self) -> None:
        self.ran: list[int] = []

    def __call__(self, pixels: np.ndarray) -> BatchResult:
        labels = np.rint(pixels[:, 0, 0, 0] * 255).astype(int)
        if POISON in labels:
            raise ValueError("poison")
        self.ran.append(len(pixels))
        return BatchResult(np.eye(256, dtype=np.float32)[labels], [None] * len(pixels))


@pytest.fixture
def executor() -> Iterator[ThreadPoolExecutor]:
    """Yield an executor for long batches."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


Questioning = Callable[[Batcher], Awaitable[list[BatchSlice | BaseException]]]


def answers(
    network: Network, executor: ThreadPoolExecutor, questioning: Questioning, seconds: float = 0.0, limit: int = 1000
) -> list[BatchSlice | BaseException]:
    """Return the results of requests, for a time per image and a limit on waiting images."""

    async def ask() -> list[BatchSlice | BaseException]:
        return await questioning(Batcher(network, seconds, QueueLimit(limit), executor, lambda *_: None))

    return asyncio.run(ask())


def labels(found: list[BatchSlice | BaseException]) -> list[list[int] | str]:
    """Return the labels of each result, and the text of each error."""
    return [answer.labels if isinstance(answer, BatchSlice) else str(answer) for answer in found]


def image(*first: int) -> np.ndarray:
    """Return images of 2 by 2 pixels, given the first pixel of each."""
    pixels = np.zeros((len(first), 1, 2, 2), np.uint8)
    pixels[:, 0, 0, 0] = first
    return pixels


async def in_turns(batcher: Batcher, questions: list[np.ndarray], turns: int = 1) -> list[BatchSlice | BaseException]:
    """Send one request after another, some turns of the event loop apart."""
    asked = []
    for pixels in questions:
        asked.append(batcher.predict(pixels))
        for _ in range(turns):
            await asyncio.sleep(0)
    return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize("seconds", [0.0, INLINE_SECONDS * 2])
def test_requests_of_successive_turns_run_as_one_batch(executor: ThreadPoolExecutor, seconds: float) -> None:
    """The event loop reads a few connections per turn; requests of successive turns join one batch."""
    network = Network()
    found = answers(network, executor, lambda b: in_turns(b, [image(n) for n in range(1, 6)]), seconds)

    assert labels(found) == [[1], [2], [3], [4], [5]]
    assert network.ran == [5]


def test_a_single_request_does_not_wait_for_others(executor: ThreadPoolExecutor) -> None:
    """The request is answered within a few empty turns of the event loop."""
    network = Network()
    found = answers(network, executor, lambda b: in_turns(b, [image(1), image(2)], turns=5))

    assert labels(found) == [[1], [2]]
    assert network.ran == [1, 1]


def test_a_batch_is_not_larger_than_the_limit(executor: ThreadPoolExecutor) -> None:
    """The remaining requests run in the next batch, and every request gets the results for its own images."""
    network = Network()
    questions = [image(*range(20, 50)), image(1), image(*range(50, 90)), image(2)]
    found = answers(network, executor, lambda b: in_turns(b, questions))

    assert labels(found) == [[*range(20, 50)], [1], [*range(50, 90)], [2]]
    assert network.ran == [31, 41]
    assert max(network.ran) <= MAX_BATCH


def test_a_request_that_fails_does_not_affect_its_batch(executor: ThreadPoolExecutor) -> None:
    """The other requests of its batch are answered."""
    network = Network()
    found = answers(network, executor, lambda b: in_turns(b, [image(1), image(POISON), image(2)]))

    assert labels(found) == [[1], "poison", [2]]


def test_the_meter_gets_only_counted_rows(executor: ThreadPoolExecutor) -> None:
    """For a mixed batch, the meter gets only the rows of predictions, and the number of all images."""
    told: list[tuple[list[int], int]] = []

    async def ask() -> list[BatchSlice]:
        batcher = Batcher(Network(), 0.0, QueueLimit(), executor, lambda batch, n, *_: told.append((batch.labels, n)))
        asked = [batcher.predict(image(1, 2)), batcher.predict(image(3, 4), counted=False), batcher.predict(image(5))]
        return await asyncio.gather(*asked)

    assert [answer.labels for answer in asyncio.run(ask())] == [[1, 2], [3, 4], [5]]
    assert told == [([1, 2, 5], 5)]


@pytest.mark.parametrize("seconds", [0.0, INLINE_SECONDS * 2])
def test_answers_are_delivered_even_if_counting_fails(executor: ThreadPoolExecutor, seconds: float) -> None:
    """The next request is answered too."""

    async def ask() -> list[list[int]]:
        batcher = Batcher(Network(), seconds, QueueLimit(), executor, lambda *_: [].pop())
        return [(await asyncio.wait_for(batcher.predict(image(n)), 10)).labels for n in (1, 2)]

    assert asyncio.run(ask()) == [[1], [2]]


def test_requests_above_the_queue_limit_are_refused_at_once(executor: ThreadPoolExecutor) -> None:
    """Waiting requests are answered, and then there is room again."""

    async def crowd(batcher: Batcher) -> list[BatchSlice | BaseException]:
        first = batcher.predict(image(1, 2))
        with pytest.raises(Busy):
            batcher.predict(image(3))
        await first
        return await in_turns(batcher, [image(4, 5)])

    assert labels(answers(Network(), executor, crowd, limit=2)) == [[4, 5]]
