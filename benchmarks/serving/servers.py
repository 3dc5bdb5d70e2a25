"""The servers that are measured, each pinned to one core and frozen while another is measured."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from time import monotonic, sleep
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil

from benchmarks.serving.trained import Trained
from worker.local import free_port

START_SECONDS = 60  # for a server to start
FOLDER = Path(__file__).parent / "contestants"
UVICORN = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--no-access-log"]


@dataclass(frozen=True)
class Contestant:
    """A way of serving a network over HTTP."""

    name: str
    command: Callable[[int], list[str]]  # for the port to listen on
    path: str = "/predict"
    environment: dict[str, str] = field(default_factory=dict)
    nested: bool = False  # True if it expects a batch, even for one image


def chiffre(home: Path) -> Contestant:
    """Return the API, started as in docker-compose.yml but on SQLite."""
    options = ["--factory", "api.main:create_app", "--timeout-graceful-shutdown", "5"]
    environment = {"CHIFFRE_HOME": str(home), "CHIFFRE_DATABASE_URL": "", "CHIFFRE_ARTIFACTS": ""}
    return Contestant("chiffre", lambda port: [*UVICORN, "--port", str(port), *options], environment=environment)


def limit(answer: bytes) -> Contestant:
    """Return the bare ASGI application, with an answer as long as `answer`."""
    return Contestant("limit", _in_folder("limit:app"), environment={"ANSWER": answer.decode()})


def hand_written() -> Contestant:
    """Return the endpoint of FastAPI and torch."""
    return Contestant("handwritten", _in_folder("by_hand:app"))


def litserve(programs: Path) -> Contestant:
    """Return LitServe, from its own environment."""
    script = str(FOLDER / "with_litserve.py")
    return Contestant("litserve", lambda port: [str(programs / "python"), script, str(port)])


def bentoml(programs: Path, home: Path) -> list[Contestant]:
    """Return BentoML from its own environment, without and with adaptive batching; `home` is for its files."""
    options = ["serve", "with_bentoml:Digits", "--working-dir", str(FOLDER), "--host", "127.0.0.1", "--port"]
    environment = {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "1"}
    plain = Contestant(
        "bentoml", lambda port: [str(programs / "bentoml"), *options, str(port)], environment=environment
    )
    return [plain, replace(plain, name="bentoml batched", path="/batched", nested=True)]


def _in_folder(application: str) -> Callable[[int], list[str]]:
    return lambda port: [*UVICORN, "--port", str(port), "--app-dir", str(FOLDER), application]


class ContestantServer:
    """The processes of a contestant."""

    def __init__(self, contestant: Contestant, trained: Trained, core: int, log: Path) -> None:
        self.contestant = contestant
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}{contestant.path}"
        self._log = log
        own = {"NETWORK": trained.network, "WEIGHTS": str(trained.weights), "OMP_NUM_THREADS": "1"}
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                contestant.command(self.port),
                env={**os.environ, **own, **contestant.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=partial(os.sched_setaffinity, 0, {core}),
            )

    def wait_until_up(self, body: bytes, kind: str) -> bytes:
        """Return the first successful answer.

        Raises:
            RuntimeError: if there is none in time.
        """
        until = monotonic() + START_SECONDS
        while self._process.poll() is None and monotonic() < until:
            with suppress(URLError, OSError):
                return self.ask(body, kind)
            sleep(0.1)
        last_lines = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(f"{self.contestant.name} does not answer {self.url}:\n{last_lines}")

    def ask(self, body: bytes, kind: str, query: str = "") -> bytes:
        """Post one body, and return the answer.

        Raises:
            HTTPError: if the answer is an error.
        """
        with urlopen(Request(self.url + query, body, {"Content-Type": kind}), timeout=30) as response:
            content: bytes = response.read()
        return content

    @property
    def resident(self) -> int:
        """Bytes of memory of its processes; shared memory counts for each of them."""
        return sum(process.memory_info().rss for process in self._family())

    @property
    def cpu_seconds(self) -> float:
        """Seconds of processor time that its processes have used so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self._family())

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        for process in self._family():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)

    @contextmanager
    def awake(self) -> Iterator["ContestantServer"]:
        """Let the server run while the context is open."""
        self.signal(signal.SIGCONT)
        try:
            yield self
        finally:
            self.signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill all of its processes."""
        self.signal(signal.SIGSTOP)  # so that no process starts another one in the meantime
        self.signal(signal.SIGKILL)
        self._process.wait()

    def _family(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self._process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


@contextmanager
def serving(
    contestants: list[Contestant], trained: Trained, core: int, body: Callable[[Contestant], bytes], logs: Path
) -> Iterator[dict[str, ContestantServer]]:
    """Start the servers of all contestants, freeze them, and yield them by name; all are killed at the end."""
    with ExitStack() as stack:
        servers = {}
        for contestant in contestants:
            server = ContestantServer(contestant, trained, core, logs / f"{trained.network}-{contestant.name}.log")
            stack.callback(server.kill)
            server.wait_until_up(body(contestant), "application/json")
            server.signal(signal.SIGSTOP)
            servers[contestant.name] = server
        yield servers
