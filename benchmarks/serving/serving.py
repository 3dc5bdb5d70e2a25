"""The cost of a prediction over HTTP, compared with the least possible cost and with other servers.

The server runs on one core and the load on another. All servers stay up, and are frozen while another is measured.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from benchmarks.results import RESULTS, taken, write
from benchmarks.serving import environments
from benchmarks.serving.load import TOOL, Load, load
from benchmarks.serving.questions import BATCH, JSON, OCTETS, Questions
from benchmarks.serving.rows import batch_row, show, single_row
from benchmarks.serving.servers import (
    Contestant,
    ContestantServer,
    bentoml,
    chiffre,
    hand_written,
    limit,
    litserve,
    serving,
)
from benchmarks.serving.trained import Trained, train

CONCURRENCIES = (64, 16, 1)
OTHERS = ("litserve", "bentoml")
OURS = (
    "onnxruntime",
    "orjson",
    "uvicorn",
    "uvloop",
    "httptools",
    "fastapi",
    "torch",
)  # the packages that Chiffre serves with


@dataclass(frozen=True)
class Plan:
    """The size of the benchmark: full or quick."""

    networks: tuple[str, ...]
    rounds: int
    seconds: int  # of each measurement
    others: bool  # True if LitServe and BentoML take part
    limit: float = float("inf")  # seconds after which no further round starts


FULL = Plan(("shallow", "cnn"), rounds=3, seconds=4, others=True)
QUICK = Plan(("shallow",), rounds=3, seconds=1, others=False, limit=35)


@dataclass(frozen=True)
class ServerSample:
    """One measurement of one server."""

    load: Load
    cpu: float  # seconds of processor time per request, of all processes of the server
    resident: int  # bytes of memory after the measurement


class Bench:
    """The servers of one network, and the requests to them."""

    def __init__(
        self, trained: Trained, servers: dict[str, ContestantServer], questions: Questions, cores: tuple[int, int]
    ) -> None:
        self.trained = trained
        self.servers = servers
        self.questions = questions
        self.core, self.load_core = cores

    def check(self) -> None:
        """Check the answers of every server.

        Raises:
            RuntimeError: if a label differs from that of the network.
        """
        labels = self.trained.predictor.probabilities(self.questions.scaled).argmax(1).tolist()
        for name, server in self.servers.items():
            if name != "limit":
                self.questions.check(server, labels)
        self.questions.check_batch(self.servers["chiffre"], labels)

    def warm_up(self, seconds: int) -> None:
        """Load every server once, and ignore the results."""
        for server in self.servers.values():
            self.sample(server, CONCURRENCIES[0], seconds)

    def sample(self, server: ContestantServer, connections: int, seconds: int) -> ServerSample:
        """Measure one server."""
        bodies = self.questions.bodies(server.contestant)
        return self._sample(server, server.url, bodies, JSON, connections, seconds)

    def batch(self, seconds: int) -> ServerSample:
        """Measure Chiffre with all images in each body, over one connection."""
        server = self.servers["chiffre"]
        url, octets = f"{server.url}?top_k=1", [self.questions.octets]
        return self._sample(server, url, octets, OCTETS, 1, seconds)

    def model_rate(self, seconds: float) -> float:
        """Return images per second of the network in this process, on the server's core, without HTTP."""
        pixels, answered = self.questions.scaled, 0
        with pinned(self.core):
            began = perf_counter()
            while perf_counter() - began < seconds:
                self.trained.predictor.probabilities(pixels)
                answered += len(pixels)
            return answered / (perf_counter() - began)

    def _sample(
        self, server: ContestantServer, url: str, bodies: list[bytes], kind: str, connections: int, seconds: int
    ) -> ServerSample:
        with server.awake():
            before = server.cpu_seconds
            found = load(url, bodies, kind, connections, seconds, self.load_core)
            return ServerSample(found, (server.cpu_seconds - before) / found.requests, server.resident)


def measure(network: str, plan: Plan, others: list[Contestant], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of one network."""
    began = perf_counter()
    trained = train(network, folder / network)
    summary = f"{network}: {trained.test_accuracy:.2%} of test images after an epoch"
    print(f"{summary}; trained and published in {perf_counter() - began:.0f} s", flush=True)
    with ExitStack() as stack:
        bench = _bench(stack, trained, others, folder)
        bench.check()
        bench.warm_up(plan.seconds)
        samples: dict[tuple[int, str], list[ServerSample]] = {}
        batches, rates = [], []
        while len(rates) < plan.rounds and (not rates or perf_counter() - began < plan.limit):
            for connections in CONCURRENCIES:
                for name, server in bench.servers.items():
                    sample = bench.sample(server, connections, plan.seconds)
                    samples.setdefault((connections, name), []).append(sample)
            batches.append(bench.batch(plan.seconds))
            rates.append(bench.model_rate(plan.seconds))
        for connections in CONCURRENCIES:
            of = {name: samples[connections, name] for name in bench.servers}
            yield single_row(network, connections, {name: _medians(found) for name, found in of.items()}, len(rates))
        yield batch_row(network, BATCH, _medians(batches), median(rates), len(rates))


def _bench(stack: ExitStack, trained: Trained, others: list[Contestant], folder: Path) -> Bench:
    cores = two_cores()
    questions = Questions.of_test()

    def first(contestant: Contestant) -> bytes:
        return questions.bodies(contestant)[0]

    def start(contestants: list[Contestant]) -> dict[str, ContestantServer]:
        return stack.enter_context(serving(contestants, trained, cores[0], first, folder))

    ours = start([chiffre(trained.home)])
    with ours["chiffre"].awake() as server:
        answer = server.ask(first(server.contestant), JSON)
    rest = start([hand_written(), *others])
    return Bench(trained, {**start([limit(answer)]), **ours, **rest}, questions, cores)


def _medians(samples: list[ServerSample]) -> dict[str, float]:
    return {
        "requests": median(sample.load.rate for sample in samples),
        "p50": median(sample.load.p50 for sample in samples),
        "p99": median(sample.load.p99 for sample in samples),
        "cpu": median(sample.cpu for sample in samples),
        "resident": max(sample.resident for sample in samples),
    }


def two_cores() -> tuple[int, int]:
    """Return a core for the server and one for the load.

    Raises:
        RuntimeError: if this process may use only one core.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise RuntimeError("this benchmark needs two cores, one for the server and one for the load")
    return allowed[1], allowed[0]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keep this thread on a core while the context is open."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def found_others(folder: Path) -> tuple[list[Contestant], dict[str, str]]:
    """Return the contestants of other packages, and all releases; print a line for each that cannot be installed."""
    found: list[Contestant] = []
    releases = {name: version(name) for name in OURS}
    for package in OTHERS:
        try:
            programs, releases[package] = environments.programs(package), environments.version(package)
        except environments.NotInstalled as error:
            print(f"{package} is left out: {error}", flush=True)
            continue
        found += [litserve(programs)] if package == "litserve" else bentoml(programs, folder / package)
    return found, releases


def main() -> None:
    """Measure, and print a table and, as the last line, one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="run within a minute: only the shallow network, no other packages"
    )
    parser.add_argument("--out", type=Path, help="file for the results; by default benchmarks/results/serving.json")
    parser.add_argument(
        "--seconds",
        type=int,
        help=f"seconds of each measurement; by default {FULL.seconds}, or {QUICK.seconds} with --quick",
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are killed
    plan = QUICK if options.quick else FULL
    plan = replace(plan, seconds=options.seconds or plan.seconds)
    print(f"load by {TOOL}", flush=True)
    rows = []
    with TemporaryDirectory(prefix="chiffre-serving-") as folder:
        others, releases = found_others(Path(folder)) if plan.others else ([], {})
        for network in plan.networks:
            for found in measure(network, plan, others, Path(folder)):
                show(found)
                rows.append(found)
    out = options.out or (None if options.quick else RESULTS / "serving.json")
    if out is not None:
        write(out, {**taken(), "load": TOOL, "releases": releases, "seconds": plan.seconds, "rows": rows})
    print(json.dumps({"rows": rows}))
