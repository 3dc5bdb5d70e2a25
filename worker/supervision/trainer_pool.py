"""The worker's trainers: warm processes, lent to one pack at a time."""

import os
import signal
import subprocess
import sys
from collections.abc import Collection
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import orjson
import structlog

from ml.records import Stop
from worker.ledger.leases import Claim
from worker.settings import cores

log = structlog.get_logger()


class TrainerDied(Exception):
    """The trainer's process ended without an answer; the text says how."""


class TrainerProcess:
    """One training process, exec'd in a process group of its own."""

    def __init__(self) -> None:
        ours, theirs = Pipe()
        self._pipe: Connection = ours
        # One thread each: the trainers together use every core once.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.trainer", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
        theirs.close()
        self._device: str | None = None  # once it is ready

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def wait_until_ready(self) -> str:
        """Wait until torch is loaded, about three seconds after the start; where it trains, cpu or cuda.

        TrainerDied where the process ended.
        """
        if self._device is None:
            self._device = str(self._receive()["ready"])
        return self._device

    def begin(self, claim: Claim) -> None:
        """Hand over a pack; TrainerDied where the process is gone."""
        self._send({"pack": claim.pack_id, "job": claim.job_id, "epoch": claim.epoch, "purpose": claim.purpose})

    def stop(self, reason: Stop) -> None:
        """Ask for the pack to be ended at the next step."""
        self._send({"stop": reason})

    def cancel(self, numbers: Collection[int]) -> None:
        """Ask for these trials to be left out from the next step on."""
        self._send({"cancelled": sorted(numbers)})

    def answer(self, timeout: float) -> dict[str, Any] | None:
        """How the pack went, None while it is being worked on; TrainerDied where the process ended."""
        try:
            answered = self._pipe.poll(timeout)
        except OSError:  # the pipe is closed
            raise TrainerDied(self._how()) from None
        return self._receive() if answered else None

    def kill(self) -> None:
        """End the process and whatever it started."""
        if self.alive:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._pipe.close()

    def _receive(self) -> dict[str, Any]:
        try:
            message: dict[str, Any] = orjson.loads(self._pipe.recv_bytes())
        except (EOFError, OSError):
            raise TrainerDied(self._how()) from None
        return message

    def _send(self, order: dict[str, Any]) -> None:
        try:
            self._pipe.send_bytes(orjson.dumps(order))
        except (BrokenPipeError, OSError):
            raise TrainerDied(self._how()) from None

    def _how(self) -> str:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        return f"the training process died ({how}); its log says more"


class Trainers:
    """A fixed number of warm trainers; one that dies is replaced at once, until they are closed."""

    def __init__(self, number: int | None) -> None:
        """Start so many; None: one a core, but on a GPU one in all, whose lanes fill it where more would take turns."""
        self._idle: SimpleQueue[TrainerProcess] = SimpleQueue()
        self._all: list[TrainerProcess] = []
        self._closed = False
        self._lock = Lock()  # over the two above: a thread may give a trainer back while another closes
        first = self._start()
        self._idle.put(first)
        for _ in range(1, number or _most_useful(first)):
            self._idle.put(self._start())

    def borrow(self) -> TrainerProcess | None:
        """An idle trainer, None where all are at work or they are closed."""
        try:
            trainer = self._idle.get_nowait()
        except Empty:
            return None
        return trainer if trainer.alive else self._replace(trainer)

    def give_back(self, trainer: TrainerProcess) -> None:
        """Return a borrowed trainer, dead or alive."""
        returned = trainer if trainer.alive else self._replace(trainer)
        if returned is not None:
            self._idle.put(returned)

    def close(self) -> None:
        """End all of them, for good."""
        with self._lock:
            self._closed = True
            for trainer in self._all:
                trainer.kill()

    def _start(self) -> TrainerProcess:
        trainer = TrainerProcess()
        self._all.append(trainer)
        return trainer

    def _replace(self, dead: TrainerProcess) -> TrainerProcess | None:
        with self._lock:
            if self._closed:
                return None
            dead.kill()
            try:
                started = self._start()
            except OSError as error:  # no process or no memory just now: the next look tries again
                log.error("a trainer cannot be started", error=str(error))
                self._idle.put(dead)
                return None
            self._all.remove(dead)
            return started


def _most_useful(first: TrainerProcess) -> int:
    """How many trainers are worth having where the first trains."""
    try:
        return 1 if first.wait_until_ready() == "cuda" else cores()
    except TrainerDied:  # whoever borrows it will say so, and replace it
        return cores()
