"""Champions that change under load."""

import asyncio
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient
from support.worker_tools import Work

from api.inputs.options import Options
from api.prediction.roster import Roster
from tests.api.tools import Version, eventually, publish, uvicorn_process
from worker.artifacts.folder import FolderStore
from worker.ledger.champions import Champions

REQUESTS, CONCURRENCY, SWAPS = 10_000, 200, 20
IMAGES = [[random.Random(n).randrange(256) for _ in range(784)] for n in range(20)]


async def load(url: str) -> tuple[Counter[int], list[tuple[int, dict[str, Any]]]]:
    """Return the statuses of all requests, and each answer with its image, while champions change."""
    statuses: Counter[int] = Counter()
    answers: list[tuple[int, dict[str, Any]]] = []
    numbers = iter(range(REQUESTS))
    limits = httpx2.Limits(max_connections=CONCURRENCY + 1)
    async with httpx2.AsyncClient(base_url=url, timeout=60, limits=limits) as client:

        async def ask() -> None:
            for number in numbers:
                response = await client.post("/predict", json={"pixels": IMAGES[number % len(IMAGES)]})
                statuses[response.status_code] += 1
                if response.status_code == 200:
                    answers.append((number % len(IMAGES), response.json()))

        async def swap() -> None:
            for number in range(SWAPS):
                while statuses.total() < REQUESTS * number // SWAPS:
                    await asyncio.sleep(0.001)
                moved = await client.put("/models/shallow/champion", json={"version": 1 + number % 2})
                assert moved.status_code == 200

        await asyncio.gather(swap(), *(ask() for _ in range(CONCURRENCY)))
    return statuses, answers


@pytest.mark.long
def test_every_answer_under_load_comes_from_one_version(work: Work, environment: Path) -> None:
    """10,000 requests, 200 at once, over 20 changes get 200, 429 or 503, and each answer agrees with its version."""
    versions: dict[int, Version] = {
        1: publish(work, environment, "shallow", 0.8, seed=1),
        2: publish(work, environment, "shallow", 0.9, seed=2),
    }
    expected = {
        (number, image): pytest.approx(version.answer([float(v) for v in IMAGES[image]], 255), abs=1e-5)
        for number, version in versions.items()
        for image in range(len(IMAGES))
    }
    with uvicorn_process("--timeout-keep-alive", "60") as url:  # this client may be slower than the default 5 s
        statuses, answers = asyncio.run(load(url))

    assert statuses.total() == REQUESTS
    assert statuses.keys() <= {200, 429, 503}
    assert statuses[200] > REQUESTS / 2
    assert {answer["version"] for _, answer in answers} == {1, 2}
    for image, answer in answers:
        assert answer["probabilities"] == expected[answer["version"], image]
        assert answer["job_id"] == versions[answer["version"]].job.id
        assert answer["checkpoint_sha256"] == versions[answer["version"]].checkpoint_sha256


@pytest.mark.long
def test_every_process_follows_a_promotion_within_two_seconds(work: Work, environment: Path) -> None:
    """A version promoted through one API predicts there at once, and soon in the other API."""
    publish(work, environment, "shallow", 0.9, seed=1)
    publish(work, environment, "shallow", 0.8, seed=2)
    with uvicorn_process() as one, uvicorn_process() as other:
        before = [version_of(url) for url in (one, other)]
        httpx2.put(f"{one}/models/shallow/champion", json={"version": 2}).raise_for_status()
        promoted = monotonic()
        at_once = version_of(one)
        followed = eventually(lambda: version_of(other) == 2, 5)
        seconds = monotonic() - promoted
        httpx2.post(f"{one}/models/shallow/champion/rollback").raise_for_status()
        back = version_of(one)

    assert before == [1, 1]
    assert at_once == 2
    assert followed
    assert seconds < 2
    assert back == 1


def version_of(url: str) -> int:
    """Return the number of the version that predicts."""
    response = httpx2.post(f"{url}/predict", json={"pixels": IMAGES[0]}).raise_for_status()
    number: int = response.json()["version"]
    return number


def test_readyz_reports_a_champion_that_does_not_load(api: TestClient, work: Work, environment: Path) -> None:
    """The previous version still predicts, and /readyz names the failing version and the cause."""
    publish(work, environment, "shallow", 0.8, seed=1)
    api.post("/predict", json={"pixels": IMAGES[0]})
    sound = api.get("/readyz").json()
    publish(work, environment, "shallow", 0.9, seed=2, spoil=Path.unlink)
    api.app.state.roster.refresh()  # type: ignore[attr-defined]
    failing = api.get("/readyz").json()

    assert (sound["models"], sound["failing"]) == (["shallow/mnist"], {})
    assert failing["models"] == ["shallow/mnist"]
    assert failing["failing"]["shallow/mnist"].startswith("version 2: ")
    assert api.post("/predict", json={"pixels": IMAGES[0]}).json()["version"] == 1


def test_after_a_restart_an_earlier_version_replaces_a_damaged_champion(work: Work, environment: Path) -> None:
    """The newest loadable version that was not rolled back predicts; the damaged one is still reported."""
    for value, seed, spoil in ((0.7, 1, Path.exists), (0.8, 2, Path.unlink)):
        publish(work, environment, "shallow", value, seed=seed, spoil=spoil)
    publish(work, environment, "shallow", 0.85, seed=3)
    Champions(work.database).rollback("shallow", "mnist")
    publish(work, environment, "shallow", 0.9, seed=4, spoil=Path.unlink)
    with ThreadPoolExecutor() as pool:
        roster = Roster(work.database, FolderStore(environment), pool)
        roster.refresh()
        roster.refresh()

    assert roster.find(Options()).version.version == 1
    assert roster.failing()["shallow/mnist"].startswith("version 4: ")


def test_a_version_that_storage_delays_does_not_block_others(work: Work, environment: Path) -> None:
    """Meanwhile other versions predict; requests for the delayed version wait, and it is read once."""
    for value, seed in ((0.9, 1), (0.8, 2), (0.7, 3)):
        publish(work, environment, "shallow", value, seed=seed)
    waits, asked, given = Event(), Event(), Event()
    read: list[str] = []

    class Away(FolderStore):
        def read(self, path: str, sha256: str) -> bytes:
            read.append(path)
            if waits.is_set():
                waits.clear()
                asked.set()
                assert given.wait(60)
            return super().read(path, sha256)

    with ThreadPoolExecutor() as pool:
        roster = Roster(work.database, Away(environment), pool)
        roster.refresh()
        one, two, three = (Options(model="shallow", version=number) for number in (1, 2, 3))
        waits.set()
        first, second = pool.submit(roster.find, two), pool.submit(roster.find, two)
        assert asked.wait(60)
        found = [pool.submit(roster.find, options) for options in (one, three)]
        try:
            numbers = [each.result(30).version.version for each in found]
        finally:
            given.set()

    assert numbers == [1, 3]
    assert first.result() is second.result()
    assert len(read) == 3


def test_readyz_does_not_report_a_champion_that_has_just_loaded(work: Work, environment: Path) -> None:
    """An entry that the follower removes during the request is not reported."""

    class Struck(dict[int, tuple[float, str]]):
        def __contains__(self, key: object) -> bool:
            return True

    publish(work, environment, "shallow", 0.8)
    roster = Roster(work.database, FolderStore(environment), ThreadPoolExecutor())
    roster._postponed = Struck()

    assert roster.failing() == {}
