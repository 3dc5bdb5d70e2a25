"""Analyses and plots of jobs: computed in a separate process, and cached until the job changes."""

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

SECONDS = 120.0  # timeout; an analysis takes about 6 s of one core, which it shares with trainers
AT_ONCE = 2  # processes; each takes about 300 MiB
CACHE_BYTES = 64 << 20  # size limit of the cache; beyond it the least recently used goes

log = structlog.get_logger()


class Analyses:
    """A cache of analyses and plots; the key of each entry includes the job's event counter."""

    def __init__(self) -> None:
        self._folder: TemporaryDirectory[str] | None = None
        self._running: dict[str, asyncio.Task[bytes]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def get(self, job: Job, plot: str | None = None, options: dict[str, Any] | None = None) -> bytes:
        """Return the analysis of a job as JSON, or one of its plots.

        Concurrent requests for the same result share one computation.

        Raises:
            NotAnalysed: if computing takes too long or fails.

        """
        order = orjson.dumps({"job": job.id, "plot": plot, "options": options or {}}, option=orjson.OPT_SORT_KEYS)
        name = f"{hashlib.sha256(order).hexdigest()}.{job.sequence}"
        path = self._path(name)
        if name not in self._running:
            self._running[name] = asyncio.create_task(self._cached_or_computed(path, order))
            self._running[name].add_done_callback(lambda task: self._forget(name, task))
        return await asyncio.shield(self._running[name])  # a client that disconnects does not end it for the others

    async def close(self) -> None:
        """Cancel running computations and remove the cache."""
        for task in (running := list(self._running.values())):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._folder is not None:
            self._folder.cleanup()

    async def _cached_or_computed(self, path: Path, order: bytes) -> bytes:
        with suppress(FileNotFoundError):
            return await asyncio.to_thread(_read, path)
        return await self._compute(path, order)

    async def _compute(self, path: Path, order: bytes) -> bytes:
        try:
            async with asyncio.timeout(SECONDS), self._turns:
                content = await _run_analyst(order)
        except TimeoutError:
            detail = f"the analysis took longer than {SECONDS:.0f} seconds; try again when the machine is less busy"
            raise NotAnalysed(detail) from None
        await asyncio.to_thread(_cache, path, content)
        return content

    def _forget(self, name: str, task: "asyncio.Task[bytes]") -> None:
        del self._running[name]
        if not task.cancelled():
            task.exception()  # else asyncio logs an error if no request waits for the task any more

    def _path(self, name: str) -> Path:
        if self._folder is None:
            # Not in the home folder: a container can write to the artifacts and the temporary folder only.
            self._folder = TemporaryDirectory(prefix="chiffre-analyses-")
        return Path(self._folder.name, name)


def _read(path: Path) -> bytes:
    content = path.read_bytes()
    with suppress(FileNotFoundError):  # another thread may have removed the file meanwhile
        os.utime(path)  # mark it as recently used
    return content


def _cache(path: Path, content: bytes) -> None:
    """Store a result; remove results of older states of the job, and the least recently used beyond the limit."""
    try:
        partial = path.with_suffix(f"{path.suffix}.partial")
        partial.write_bytes(content)
        partial.rename(path)
        for outdated in path.parent.glob(f"{path.stem}.*"):
            if outdated.name != path.name:
                outdated.unlink(missing_ok=True)
        _make_room(path.parent)
    except OSError as error:  # such as a full disk: the next request computes the result again
        log.warning("an analysis could not be cached", error=str(error))


def _make_room(folder: Path) -> None:
    files = sorted(((file.stat(), file) for file in folder.iterdir()), key=lambda pair: pair[0].st_mtime)
    excess = sum(status.st_size for status, _ in files) - CACHE_BYTES
    for status, file in files:
        if excess <= 0:
            return
        file.unlink(missing_ok=True)
        excess -= status.st_size


async def _run_analyst(order: bytes) -> bytes:
    """Return the output of the analyst for an order.

    Raises:
        NotAnalysed: if the process fails.

    """
    command = [sys.executable, "-m", "worker.start", "worker.analyst"]
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE)
    try:
        content, _ = await process.communicate(order)
    finally:
        await _end(process)
    if process.returncode != 0:
        log.error("an analysis failed", status=process.returncode)
        raise NotAnalysed(f"the analysis failed with exit status {process.returncode}; the API's log shows the cause")
    return content


async def _end(process: Process) -> None:
    """Kill a process that still runs."""
    if process.returncode is None:
        process.kill()
        await process.wait()
