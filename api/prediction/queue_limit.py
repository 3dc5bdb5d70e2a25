"""A limit on what waits in this process, so that more is refused rather than kept waiting."""

from api.http.errors import Busy

MAX_QUEUED = 8192  # images that wait, over all networks


class QueueLimit:
    """The number of images, or of other units, that wait in this process, and the most that may."""

    def __init__(self, limit: int = MAX_QUEUED, unit: str = "images") -> None:
        self.limit = limit
        self.unit = unit
        self.waiting = 0

    def enter(self, count: int) -> None:
        """Take places in the queue.

        Raises:
            Busy: if too few are left.
        """
        if self.waiting + count > self.limit:
            raise Busy(f"{self.waiting} {self.unit} are waiting for an answer already; try again shortly")
        self.waiting += count

    def leave(self, count: int) -> None:
        """Give places back."""
        self.waiting -= count
