"""Processes of a cluster, and how to find them again."""

import ctypes
import resource
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

import worker
from worker.local import PR_SET_PDEATHSIG

ROOT = Path(worker.__file__).parent.parent  # the tree that these tests import is the tree that runs


@dataclass
class Process:
    """One process of a cluster, and how to start it again."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, in a session of its own."""
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_the_tests,
            )

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.popen is not None and self.popen.poll() is None

    def tree(self) -> list[psutil.Process]:
        """It and all that it has started."""
        if self.popen is None or not self.alive:  # its number may be another's by now
            return []
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.popen.pid)
            return [own, *own.children(recursive=True)]
        return []

    def kill(self) -> None:
        """Kill it, and it alone, with signal 9."""
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()

    def pause(self) -> None:
        """Stop it and all that it has started, as a machine that sleeps does."""
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Let it and all that it has started go on."""
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                process.resume()


def processes_of(home: Path) -> list[psutil.Process]:
    """Every process that carries this home in its environment, orphans included."""
    return [process for process in psutil.process_iter() if _home(process) == str(home)]


def is_trainer(process: psutil.Process) -> bool:
    """Whether a process trains."""
    try:
        return "worker.trainer" in process.cmdline()
    except psutil.Error:  # it ended
        return False


def _home(process: psutil.Process) -> str | None:
    try:
        return str(process.environ().get("CHIFFRE_HOME"))
    except (psutil.Error, OSError):  # it ended, or is another user's
        return None


def _end_with_the_tests() -> None:
    """Let the kernel end this process when the tests end, however they do, and write no core file."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
