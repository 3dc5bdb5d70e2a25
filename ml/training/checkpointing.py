"""The rule for how often a pack is checkpointed."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

CHECKPOINT_SHARE = 0.02  # of a pack's time that its checkpoints may take


class CheckpointRule:
    """Decide when the next checkpoint of a pack is due.

    A checkpoint is due once the given seconds have passed since the one before. If checkpoints are slow, the rule waits
    longer: until the last one took no more than CHECKPOINT_SHARE of the time since then.
    """

    def __init__(self, seconds: float) -> None:
        """Start the clock.

        Args:
            seconds: the least time between two checkpoints.
        """
        self._seconds = seconds
        self._last = monotonic()  # when the last checkpoint was finished
        self._cost = 0.0  # the seconds that it took

    @property
    def due(self) -> bool:
        """True if it is time for a checkpoint; asked before every step, so it is cheap."""
        return monotonic() - self._last > max(self._seconds, self._cost / CHECKPOINT_SHARE)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Measure a checkpoint that is made inside the `with` block, and restart the clock after it."""
        started = monotonic()
        yield
        self._last = monotonic()
        self._cost = self._last - started
