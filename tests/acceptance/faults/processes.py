"""Processes of a cluster: start them, stop them, and find them again."""

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

ROOT = Path(worker.__file__).parent.parent  # the processes run the same source tree that the tests import


@dataclass
class Process:
    """One process of a cluster, which can be started again."""

    name: str
    command: list[str]
    environment: dict[str, str]
    log: Path
    popen: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process in a new session."""
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
        """True if the process runs."""
        return self.popen is not None and self.popen.poll() is None

    def tree(self) -> list[psutil.Process]:
        """Return the process and all processes that it has started."""
        if self.popen is None or not self.alive:  # another process may have its id by now
            return []
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.popen.pid)
            return [own, *own.children(recursive=True)]
        return []

    def kill(self) -> None:
        """Kill this process alone, with signal 9."""
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()

    def pause(self) -> None:
        """Stop the process and all processes that it has started, like a machine that goes to sleep."""
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                process.suspend()

    def resume(self) -> None:
        """Continue the process and all processes that it has started."""
        for process in self.tree():
            with suppress(psutil.NoSuchProcess):
                process.resume()


def processes_of(home: Path) -> list[psutil.Process]:
    """Return every process with this home in its environment, orphans included."""
    return [process for process in psutil.process_iter() if _home(process) == str(home)]


def is_trainer(process: psutil.Process) -> bool:
    """Return whether a process is a trainer."""
    try:
        return "worker.trainer" in process.cmdline()
    except psutil.Error:  # the process has ended
        return False


def _home(process: psutil.Process) -> str | None:
    try:
        return str(process.environ().get("CHIFFRE_HOME"))
    except (psutil.Error, OSError):  # the process has ended, or belongs to another user
        return None


def _end_with_the_tests() -> None:
    """Make the kernel kill this process when the tests end in any way, and write no core file."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
