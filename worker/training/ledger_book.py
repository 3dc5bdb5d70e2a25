"""The ledger as the book of a tuning: a claimed pack, its records, and the files that its rows point to."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from ml.artifacts import checkpoint_bytes, checkpoint_of
from ml.errors import CheckpointError
from ml.records import Checkpoint, Event, Finished, PackRecord, Stop, TrialRecord
from ml.tuning.keys import Key
from ml.tuning.search import Search
from worker.artifacts.new_files import NewFiles, Stored
from worker.artifacts.store import Store
from worker.database.tables import Artifact
from worker.errors import StorageAway, StorageFull
from worker.ledger.leases import Claim
from worker.ledger.ledger import Ledger

log = structlog.get_logger()


class Orders(Protocol):
    """The supervisor's orders for a claimed pack; they may change at any time."""

    stop: Stop | None
    cancelled: frozenset[int]


@dataclass
class JobSearch:
    """A job's search, which a trainer keeps from one pack to the next."""

    search: Search
    seen: int = 0  # the value of the job's counter up to which records were applied


@dataclass
class LedgerBook:
    """The book of one claimed pack."""

    ledger: Ledger
    claim: Claim
    warm: JobSearch
    orders: Orders
    store: Store
    checkpoint_seconds: float
    _opened: bool = False
    _kept: int = 0  # number of checkpoints that were made of the pack

    def open(self) -> PackRecord | None:
        """Return the claimed pack with its newest undamaged checkpoint; None once it has been opened."""
        if self._opened:
            return None
        self._opened = True
        opened = self.ledger.pack(self.claim)
        opened.record.checkpoint = self._newest_whole(opened.checkpoints)
        return opened.record

    def reserve(self, fits: Callable[[int], bool]) -> TrialRecord | None:
        """Reserve one more of the job's trials for this pack.

        If the job is paused, the pack must stop before its next step: the order to do so comes up to a second later,
        and the trial would begin at another step than without the pause.
        """
        reserved = self.ledger.reserve(self.claim, fits)
        if isinstance(reserved, Stop):
            self.orders.stop = reserved
            return None
        return reserved

    def take(self, drawn: TrialRecord) -> bool:
        """Note the point that a trial will try; return False if a trial of any trainer has it."""
        return self.ledger.take(self.claim, drawn)

    def width(self, key: Key, measured: Callable[[], int]) -> int:
        """Return the width of the job's packs, which its first pack measured."""
        lanes = self.ledger.lanes(self.claim.job_id) or measured()
        return self.ledger.fix_lanes(self.claim, str(key), lanes)

    def divide(self, groups: Sequence[Sequence[int]]) -> None:
        """Move running trials to new packs, which any trainer may claim."""
        if groups:
            self.ledger.divide(self.claim, groups)

    def changes(self) -> Iterable[TrialRecord]:
        """Return the job's trials that any trainer changed since this process last asked."""
        records, self.warm.seen = self.ledger.changes(self.claim.job_id, self.warm.seen)
        return records

    def record(self, events: Sequence[Event]) -> None:
        """Save weights that are worth keeping, then write the rows that point to them, then drop replaced files.

        Raises:
            LeaseLost: if another worker has claimed the pack.
            StorageFull: if there is no room for the weights.
        """
        saved: dict[int, Stored] = {}
        with NewFiles(self.store) as files:
            for event in events:
                if isinstance(event, Finished) and event.checkpoint and event.value is not None:
                    saved |= self._save(files, event, event.checkpoint, event.value)
            self.ledger.record(self.claim, events, saved)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Save a checkpoint of the pack, then write the row that points to it.

        If there is no room for it, training goes on: a resume then uses the previous checkpoint.
        """
        self._kept += 1
        path = f"{self.claim.job_id}/packs/{self.claim.pack_id}.{self.claim.epoch}.{self._kept}.safetensors"
        with NewFiles(self.store) as files:
            try:
                saved = files.write(path, checkpoint_bytes(checkpoint))
            except (StorageFull, StorageAway) as error:
                log.warning("no checkpoint of the pack could be saved", pack=self.claim.pack_id, error=str(error))
                return
            self.ledger.keep(self.claim, checkpoint.card["position"], saved)

    def should_stop(self) -> Stop | None:
        """Return the supervisor's order to stop, if there is one."""
        return self.orders.stop

    def cancelled(self) -> Collection[int]:
        """Return the numbers of the trials that the supervisor reports as cancelled."""
        return self.orders.cancelled

    def _newest_whole(self, checkpoints: Iterable[Artifact]) -> Checkpoint | None:
        """Return the first undamaged checkpoint of a pack; discard the damaged ones before it."""
        for artifact in checkpoints:
            try:
                return checkpoint_of(self.store.read(artifact.path, artifact.sha256), artifact.path)
            except CheckpointError as error:
                log.warning("a pack's checkpoint is damaged", pack=self.claim.pack_id, error=str(error))
                self.ledger.discard(self.claim, artifact, str(error))
        return None

    def _save(self, files: NewFiles, event: Finished, checkpoint: Checkpoint, value: float) -> dict[int, Stored]:
        """Save a trial's checkpoint if it is worth keeping."""
        if not self.ledger.worth_keeping(self.claim, event.number, value):
            return {}
        # With pack and epoch in the path, two claims or two attempts at a trial never write the same file.
        path = f"{self.claim.job_id}/{event.number}.{self.claim.pack_id}.{self.claim.epoch}.safetensors"
        return {event.number: files.write(path, checkpoint_bytes(checkpoint))}
