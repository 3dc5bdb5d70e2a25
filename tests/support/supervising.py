"""Run a supervisor in the background, and wait for its effects."""

from collections.abc import Callable
from threading import Thread
from time import monotonic, sleep

from worker.supervision.supervisor import Supervisor

DEADLINE = 60.0  # seconds; long enough for a busy machine


def until(condition: Callable[[], object]) -> None:
    """Wait until a condition is true that another process or thread fulfils."""
    deadline = monotonic() + DEADLINE
    while not condition():
        assert monotonic() < deadline, "the condition did not become true in time"
        sleep(0.02)


def in_background(supervisor: Supervisor) -> Thread:
    """Start the supervisor in a thread, and return the thread."""
    thread = Thread(target=supervisor.work)
    thread.start()
    return thread
