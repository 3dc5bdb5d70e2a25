"""The training processes of a worker: started in advance and lent to one pack at a time."""

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
    """The training process ended without an answer; the text says how."""


class TrainerProcess:
    """One training process, exec'd in a separate process group."""

    def __init__(self) -> None:
        ours, theirs = Pipe()
        self._pipe: Connection = ours
        # One thread each, as there is a trainer for every core.
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "worker.start", "worker.trainer", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            env=environment,
        )
        theirs.close()
        self._device: str | None = None  # known once it is ready

    @property
    def alive(self) -> bool:
        """True if the process is running."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def wait_until_ready(self) -> str:
        """Wait until torch is loaded, about three seconds after the start, and return the device: "cpu" or "cuda".

        Raises:
            TrainerDied: if the process ended.
        """
        if self._device is None:
            self._device = str(self._receive()["ready"])
        return self._device

    def begin(self, claim: Claim) -> None:
        """Hand over a pack.

        Raises:
            TrainerDied: if the process ended.
        """
        self._send({"pack": claim.pack_id, "job": claim.job_id, "epoch": claim.epoch, "purpose": claim.purpose})

    def stop(self, reason: Stop) -> None:
        """Ask the trainer to stop the pack at its next step."""
        self._send({"stop": reason})

    def cancel(self, numbers: Collection[int]) -> None:
        """Ask the trainer to leave out these trials from its next step on."""
        self._send({"cancelled": sorted(numbers)})

    def answer(self, timeout: float) -> dict[str, Any] | None:
        """Return the trainer's answer to a pack, or None if there is none within `timeout` seconds.

        Raises:
            TrainerDied: if the process ended.
        """
        try:
            answered = self._pipe.poll(timeout)
        except OSError:  # the pipe is closed
            raise TrainerDied(self._how()) from None
        return self._receive() if answered else None

    def kill(self) -> None:
        """Kill the process and its children."""
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
        return f"the training process died ({how}); see its log"


class Trainers:
    """A fixed number of running trainers; one that dies is replaced until the pool is closed."""

    def __init__(self, number: int | None) -> None:
        """Start the trainers.

        Args:
            number: How many; None: one for each core, or one on a GPU. The lanes of one trainer fill a GPU; several
                trainers would only take turns.
        """
        self._idle: SimpleQueue[TrainerProcess] = SimpleQueue()
        self._all: list[TrainerProcess] = []
        self._closed = False
        self._lock = Lock()  # guards _all and _closed: a thread may give a trainer back while another closes the pool
        first = self._start()
        self._idle.put(first)
        for _ in range(1, number or _default_number(first)):
            self._idle.put(self._start())

    def borrow(self) -> TrainerProcess | None:
        """Return an idle trainer, or None if all are busy or the pool is closed."""
        try:
            trainer = self._idle.get_nowait()
        except Empty:
            return None
        return trainer if trainer.alive else self._replace(trainer)

    def give_back(self, trainer: TrainerProcess) -> None:
        """Put a borrowed trainer back, dead or alive."""
        returned = trainer if trainer.alive else self._replace(trainer)
        if returned is not None:
            self._idle.put(returned)

    def close(self) -> None:
        """Kill all trainers and start no more."""
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
            except OSError as error:  # too many processes or too little memory: the next poll tries again
                log.error("a trainer cannot be started", error=str(error))
                self._idle.put(dead)
                return None
            self._all.remove(dead)
            return started


def _default_number(first: TrainerProcess) -> int:
    """Return one on a GPU, else the number of cores."""
    try:
        return 1 if first.wait_until_ready() == "cuda" else cores()
    except TrainerDied:  # `borrow` replaces it
        return cores()
