"""`chiffre up` as a user starts and stops it, in a separate process."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

import psutil

from worker.local import free_port

CHIFFRE = str(Path(sys.executable).with_name("chiffre"))
START_SECONDS = 90
STOP_SECONDS = 60


@dataclass
class Up:
    """A running `chiffre up`."""

    url: str
    home: Path
    process: subprocess.Popen[str]

    def everything(self) -> list[psutil.Process]:
        """Return the process and all processes that it has started."""
        parent = psutil.Process(self.process.pid)
        return [parent, *parent.children(recursive=True)]

    def kill(self) -> None:
        """Kill everything at once, as a power failure would."""
        for process in (everything := self.everything()):
            process.kill()
        psutil.wait_procs(everything, STOP_SECONDS)

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(STOP_SECONDS)


def command_environment(url: str | None = None) -> dict[str, str]:
    """Return the environment of a `chiffre` command, without the settings of this machine."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("CHIFFRE_")}
    return {**own, "COLUMNS": "160", **({"CHIFFRE_URL": url} if url else {})}


def run_command(up: Up, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a client command against running services."""
    return subprocess.run(
        [CHIFFRE, *arguments], env=command_environment(up.url), capture_output=True, text=True, timeout=300, check=False
    )


@contextmanager
def chiffre_up(home: Path, *options: str, **environment: str) -> Iterator[Up]:
    """Run the services while the context is open, and yield them once they print that they are ready.

    There is one trainer, because each takes three seconds of a core to start, unless `environment` says otherwise.
    """
    port = free_port()
    process = subprocess.Popen(
        [CHIFFRE, "up", "--home", str(home), "--port", str(port), *options],
        env={**command_environment(), "CHIFFRE_TRAINERS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    patience = Timer(START_SECONDS, process.kill)
    patience.start()
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        patience.cancel()
        ready = re.fullmatch(r"Chiffre is ready at (http://\S+)\n", line)
        assert ready, f"no ready line but {line!r}: {process.stderr.read() if process.poll() is not None else ''}"
        yield Up(ready[1], home, process)
    finally:
        patience.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(STOP_SECONDS)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
