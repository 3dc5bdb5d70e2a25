"""Waiting for what another process brings about."""

from collections.abc import Callable
from time import monotonic, sleep

PATIENCE = 90.0  # seconds; a machine that is busy is slow


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until a condition holds; AssertionError where it does not in time, and `what` says what did not happen."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"not in {seconds:g} seconds: {what}"
        sleep(0.02)
