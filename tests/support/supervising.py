"""A supervisor at work in the background, and waiting for what it brings about."""

from collections.abc import Callable
from threading import Thread
from time import monotonic, sleep

from worker.supervision.supervisor import Supervisor

DEADLINE = 60.0  # seconds; a machine that is busy is slow


def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that another process brings about."""
    deadline = monotonic() + DEADLINE
    while not condition():
        assert monotonic() < deadline, "it did not happen in time"
        sleep(0.02)


def in_background(supervisor: Supervisor) -> Thread:
    """Let the supervisor work."""
    thread = Thread(target=supervisor.work)
    thread.start()
    return thread
