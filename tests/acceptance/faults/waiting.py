"""Wait for the effects of other processes."""

from collections.abc import Callable
from time import monotonic, sleep

PATIENCE = 90.0  # seconds; long enough for a busy machine


def until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until a condition is true.

    Raises:
        AssertionError: if it is not true in time; `what` describes the condition.

    """
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"not true within {seconds:g} seconds: {what}"
        sleep(0.1)  # each look at an API takes it some milliseconds, which jobs then lack
