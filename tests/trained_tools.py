"""Jobs that are really trained, without processes of their own."""

from dataclasses import dataclass, field

from prediction_tools import Orders
from worker_tools import Work

from worker.settings import settings
from worker.store import Store, store_of
from worker.trainer import Trainer


@dataclass
class Training:
    """A worker in this process."""

    work: Work
    store: Store = field(default_factory=lambda: store_of(settings()))

    def __post_init__(self) -> None:
        self.orders = Orders()
        self.trainer = Trainer(self.work.database, self.orders, self.store, "cpu", 15)  # type: ignore[arg-type]

    def run(self) -> None:
        """Work on packs until there are none."""
        while (claim := self.work.leases.claim()) is not None:
            answer = self.trainer.work(claim)
            assert answer.keys() <= {"done", "ended"}, answer
            if "done" in answer:
                self.work.leases.close(claim)
