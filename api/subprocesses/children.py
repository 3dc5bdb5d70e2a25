"""Child processes of the API: slow work and heavy imports run in one, so that the API stays small."""

import subprocess
import sys
from threading import BoundedSemaphore

from api.http.errors import Busy

AT_ONCE = 2
WAITING = 6  # requests; each one holds one of the API's threads
WAIT_SECONDS = 30.0  # timeout of a request that waits for its turn
RUN_SECONDS = 120.0
OTHERS = "too many slow requests at once; try again in a minute"
AWAY = 75  # EX_TEMPFAIL of sysexits.h: the database or the storage does not answer; try again later


class Children:
    """Runs child processes: at most two at a time, with a short queue."""

    def __init__(self) -> None:
        self._free = BoundedSemaphore(AT_ONCE)
        self._places = BoundedSemaphore(AT_ONCE + WAITING)

    def run(self, module: str, *arguments: str, fed: bytes = b"") -> bytes:
        """Run `python -m worker.start module arguments…` and return its standard output.

        Args:
            module: name of the module to run.
            arguments: command-line arguments.
            fed: bytes for standard input.

        Raises:
            Busy: if the queue is full, the process takes too long, or database or storage do not answer.

        """
        if not self._places.acquire(blocking=False):
            raise Busy(OTHERS)
        try:
            return self._run(module, *arguments, fed=fed)
        finally:
            self._places.release()

    def _run(self, module: str, *arguments: str, fed: bytes) -> bytes:
        if not self._free.acquire(timeout=WAIT_SECONDS):
            raise Busy(OTHERS)
        try:
            command = [sys.executable, "-m", "worker.start", module, *arguments]
            done = subprocess.run(command, input=fed, capture_output=True, timeout=RUN_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise Busy("the request took more than two minutes; try again when the machine is less busy") from None
        finally:
            self._free.release()
        if done.returncode == AWAY:
            raise Busy("the database or the storage of artifacts does not answer; try again in a minute")
        if done.returncode:
            raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr.decode(errors='replace')[-4000:]}")
        return done.stdout
