"""The load: requests over persistent connections, each sent as soon as the last answer arrives, from one core.

wrk makes the load if it is installed (Debian: `apt-get install wrk`); otherwise the client below does, on uvloop.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from statistics import quantiles
from tempfile import TemporaryDirectory
from time import perf_counter
from urllib.parse import urlsplit

import uvloop

SCRIPT = Path(__file__).parent / "post.lua"
WRK = shutil.which("wrk")
TOOL = "wrk" if WRK else "benchmarks.serving.load, in Python, as wrk is not installed"


class LoadError(Exception):
    """A server failed to answer a request successfully, so there is no result."""


@dataclass(frozen=True)
class Load:
    """The result of a load."""

    requests: int  # answered requests
    seconds: float
    p50: float  # median seconds from a request to the end of its answer
    p99: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def load(url: str, bodies: Sequence[bytes], kind: str, connections: int, seconds: int, core: int) -> Load:
    """Post bodies in turn, and return the result.

    Args:
        url: The address to post to.
        bodies: The bodies.
        kind: Their content type.
        connections: The number of connections, each with one request at a time.
        seconds: The duration.
        core: The core that the load runs on.

    Raises:
        LoadError: if a request fails or is refused.
    """
    with TemporaryDirectory(prefix="chiffre-load-") as folder:
        for number, body in enumerate(bodies):
            (Path(folder) / str(number)).write_bytes(body)
        command = _command(url, connections, seconds, [folder, str(len(bodies)), kind])
        pinned = partial(os.sched_setaffinity, 0, {core})
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, preexec_fn=pinned)
    if done.returncode != 0:
        raise LoadError(f"{command[0]} ended with {done.returncode}:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found["failures"] or not found["requests"]:
        raise LoadError(f"{found['failures']} of {found['requests']} requests to {url} failed")
    return Load(found["requests"], found["micros"] / 1e6, found["p50"] / 1e6, found["p99"] / 1e6)


def _command(url: str, connections: int, seconds: int, options: list[str]) -> list[str]:
    if WRK is None:
        return [sys.executable, "-m", "benchmarks.serving.load", url, str(connections), str(seconds), *options]
    patient = ["--timeout", "30s"]  # a slow answer is measured, not counted as failed
    return [WRK, "-t1", f"-c{connections}", f"-d{seconds}s", *patient, "-s", str(SCRIPT), url, "--", *options]


class LoadConnection(asyncio.Protocol):
    """One connection, with one request at a time."""

    def __init__(self, requests: Sequence[bytes], first: int, until: float) -> None:
        self.turns = count(first)
        self.requests = requests
        self.until = until
        self.latencies: list[float] = []
        self.failures = 0
        self.ended = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self.transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Receive part of an answer; send the next request when the answer is complete."""
        self.answer += data
        head, found, body = self.answer.partition(b"\r\n\r\n")
        if not found or len(body) < int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0]):
            return
        self.latencies.append(perf_counter() - self.began)
        self.failures += not head.startswith(b"HTTP/1.1 2")
        if perf_counter() < self.until:
            self._send()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        """Finish; a connection that ends too early is a failure."""
        self.failures += perf_counter() < self.until
        self.ended.set_result(None)

    def _send(self) -> None:
        self.answer, self.began = b"", perf_counter()
        self.transport.write(self.requests[next(self.turns) % len(self.requests)])


async def drive(url: str, connections: int, seconds: float, bodies: Sequence[bytes], kind: str) -> dict[str, float]:
    """Load a server, and return the figures that post.lua prints."""
    place = urlsplit(url)
    target = f"{place.path}?{place.query}" if place.query else place.path
    head = f"POST {target} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: {kind}\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    loop, began = asyncio.get_running_loop(), perf_counter()
    found = [LoadConnection(requests, first, began + seconds) for first in range(connections)]
    for connection in found:
        await loop.create_connection(lambda connection=connection: connection, place.hostname, place.port)
    await asyncio.gather(*(connection.ended for connection in found))
    latencies = [latency for connection in found for latency in connection.latencies]
    took, percentiles = perf_counter() - began, quantiles(latencies, n=100, method="inclusive")
    failures = sum(connection.failures for connection in found)
    micros = {"micros": took, "p50": percentiles[49], "p99": percentiles[98]}
    return {"requests": len(latencies), "failures": failures, **{name: 1e6 * of for name, of in micros.items()}}


def main() -> None:
    """Do the work of post.lua on a machine without wrk."""
    url, connections, seconds, folder, number, kind = sys.argv[1:]
    bodies = [(Path(folder) / str(one)).read_bytes() for one in range(int(number))]
    print(json.dumps(uvloop.run(drive(url, int(connections), float(seconds), bodies, kind))))


if __name__ == "__main__":
    main()
