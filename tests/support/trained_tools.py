"""Jobs that are really trained, in the process of the tests."""

from dataclasses import dataclass, field
from functools import partial

from sqlalchemy import select

from ml.records import Stop
from support.worker_tools import Work
from worker.artifacts.store import Store, drop_files, store_of
from worker.database.tables import Opening, Pack, PackPurpose
from worker.settings import settings
from worker.trainer import Trainer
from worker.training.workbench import Workbench
from worker.uploaded_datasets import DatasetStore


class Orders:
    """A supervisor's orders to a trainer."""

    def __init__(self) -> None:
        self.cancelled: frozenset[int] = frozenset()
        self._stop: Stop | None = None
        self._left = 0  # questions that are still answered with None

    @property
    def stop(self) -> Stop | None:
        """The order to stop, if there is one; the trainer asks before every step."""
        self._left -= 1
        return None if self._left >= 0 else self._stop

    @stop.setter
    def stop(self, stop: Stop | None) -> None:
        self.stop_after(0, stop)

    def stop_after(self, questions: int, stop: Stop | None) -> None:
        """Give this order after so many questions."""
        self._left, self._stop = questions, stop


@dataclass
class Training:
    """A worker in this process."""

    work: Work
    store: Store = field(default_factory=lambda: store_of(settings()))

    def __post_init__(self) -> None:
        self.orders = Orders()
        self.work.database.on_unneeded = partial(drop_files, self.store)
        find = DatasetStore(self.work.database, self.store, settings().dataset_cache).find
        self.bench = Workbench(self.work.database, self.store, find, self.orders, "cpu", 15)
        self.trainer = Trainer(self.bench)

    def run(self, until: PackPurpose | None = None) -> None:
        """Work on packs until none is left, or until one with the purpose `until` is waiting."""
        while not self.waits(until) and (claim := self.work.leases.claim()) is not None:
            answer = self.trainer.work(claim)
            assert answer.keys() <= {"done", "ended"}, answer
            if "done" in answer:
                self.work.leases.close(claim)

    def openings(self) -> list[Opening]:
        """Return all openings of test images."""
        with self.work.database.reading() as session:
            return list(session.scalars(select(Opening)))

    def waits(self, purpose: PackPurpose | None) -> bool:
        """Return whether an unfinished pack with this purpose exists."""
        with self.work.database.reading() as session:
            return session.scalar(select(Pack).where(Pack.purpose == purpose, Pack.done.is_(False))) is not None
