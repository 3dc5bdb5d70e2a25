"""Analyses and plots of jobs: made in a process of their own, and kept until the job has changed."""

import asyncio
import hashlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import structlog

from api.http.errors import NotAnalysed
from worker.database.tables import Job

SECONDS = 120.0  # from the question to the answer: some 6 seconds of one core, of which trainers have their share
AT_ONCE = 2  # processes; each takes some 300 MiB
KEPT_BYTES = 64 << 20  # of what was made; of more the oldest goes

log = structlog.get_logger()


class Analyses:
    """What was made of jobs, each kept under the job's event counter at that time."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._making: dict[str, asyncio.Task[bytes]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def made(self, job: Job, plot: str | None = None, options: dict[str, Any] | None = None) -> bytes:
        """The analysis of a job as JSON, or one of its plots; who asks for what is being made waits for that.

        NotAnalysed where it takes too long or cannot be made.
        """
        order = orjson.dumps({"job": job.id, "plot": plot, "options": options or {}}, option=orjson.OPT_SORT_KEYS)
        name = f"{hashlib.sha256(order).hexdigest()}.{job.sequence}"
        path = self._path(name)
        if name not in self._making:
            self._making[name] = asyncio.create_task(self._kept_or_made(path, order))
            self._making[name].add_done_callback(lambda task: self._forget(name, task))
        return await asyncio.shield(self._making[name])  # one who goes away leaves the others waiting

    async def close(self) -> None:
        """End what is being made, and remove what was."""
        for task in (making := list(self._making.values())):
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)
        if self._folder is not None:
            self._folder.cleanup()

    async def _kept_or_made(self, path: Path, order: bytes) -> bytes:
        with suppress(FileNotFoundError):
            return await asyncio.to_thread(_read, path)
        return await self._make(path, order)

    async def _make(self, path: Path, order: bytes) -> bytes:
        try:
            async with asyncio.timeout(SECONDS), self._turns:
                content = await _answer(order)
        except TimeoutError:
            detail = f"the analysis takes longer than {SECONDS:.0f} seconds just now; try again later"
            raise NotAnalysed(detail) from None
        await asyncio.to_thread(_keep, path, content)
        return content

    def _forget(self, name: str, task: "asyncio.Task[bytes]") -> None:
        del self._making[name]
        if not task.cancelled():
            task.exception()  # else asyncio complains where nobody waits for it any more

    def _path(self, name: str) -> Path:
        if self._folder is None:
            # Not under the home: in a container nothing but the artifacts and the temporary folder can be written.
            self._folder = TemporaryDirectory(prefix="chiffre-analyses-")
        return Path(self._folder.name, name)


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    with suppress(FileNotFoundError):  # another thread may have made room meanwhile
        os.utime(path)  # the last that was asked for is the last to go
    return content


def _keep(path: Path, content: bytes) -> None:
    """Keep what was made in the place of what the job's counter has passed, and of the oldest."""
    try:
        partial = path.with_suffix(f"{path.suffix}.partial")
        partial.write_bytes(content)
        partial.rename(path)
        for passed in path.parent.glob(f"{path.stem}.*"):
            if passed.name != path.name:
                passed.unlink(missing_ok=True)
        _make_room(path.parent)
    except OSError as error:  # a full disk: it is made again when it is asked for
        log.warning("an analysis could not be kept", error=str(error))


def _make_room(folder: Path) -> None:
    files = sorted(((file.stat(), file) for file in folder.iterdir()), key=lambda pair: pair[0].st_mtime)
    excess = sum(status.st_size for status, _ in files) - KEPT_BYTES
    for status, file in files:
        if excess <= 0:
            return
        file.unlink(missing_ok=True)
        excess -= status.st_size


async def _answer(order: bytes) -> bytes:
    """What a process answers that does nothing else; NotAnalysed where it fails."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "worker.analyst", stdin=PIPE, stdout=PIPE)
    try:
        content, _ = await process.communicate(order)
    finally:
        await _ended(process)
    if process.returncode != 0:
        log.error("an analysis failed", status=process.returncode)
        raise NotAnalysed(f"the analysis failed (status {process.returncode}); the API's log says why")
    return content


async def _ended(process: Process) -> None:
    """End a process that is no longer waited for."""
    if process.returncode is None:
        process.kill()
        await process.wait()
