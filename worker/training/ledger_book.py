"""The ledger as ml.tuning.tune's book: a claimed pack, what is recorded of it, and the files that rows point to."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from ml.artifacts import checkpoint_bytes, checkpoint_of
from ml.errors import CheckpointError, ChiffreError
from ml.records import Checkpoint, Event, Finished, PackRecord, Stop, TrialRecord
from ml.tuning.keys import Key
from ml.tuning.search import Search
from worker.artifacts.store import Store, drop_files
from worker.database.tables import Artifact
from worker.errors import StorageAway, StorageFull
from worker.ledger.leases import Claim
from worker.ledger.ledger import Checkpointed, Ledger

log = structlog.get_logger()


class Orders(Protocol):
    """What whoever holds the claim wants of its pack, as it may change at any time."""

    stop: Stop | None
    cancelled: frozenset[int]


@dataclass
class JobSearch:
    """A job's search, warm from one pack to the next."""

    search: Search
    seen: int = 0  # the job's counter up to which records were applied


@dataclass
class LedgerBook:
    """A claimed pack as ml.tuning.tune's book."""

    ledger: Ledger
    claim: Claim
    warm: JobSearch
    orders: Orders
    store: Store
    checkpoint_seconds: float
    _opened: bool = False
    _kept: int = 0  # checkpoints of the pack

    def open(self) -> PackRecord | None:
        """The claimed pack with the newest of its checkpoints that is whole; None once it has been opened."""
        if self._opened:
            return None
        self._opened = True
        opened = self.ledger.pack(self.claim)
        opened.record.checkpoint = self._newest_whole(opened.checkpoints)
        return opened.record

    def reserve(self, fits: Callable[[int], bool]) -> TrialRecord | None:
        """One more of the job's trials."""
        return self.ledger.reserve(self.claim, fits)

    def width(self, key: Key, measured: Callable[[], int]) -> int:
        """What the job's first pack was found to train best with."""
        lanes = self.ledger.lanes(self.claim.job_id) or measured()
        return self.ledger.settle_pack(self.claim, str(key), lanes)

    def divide(self, groups: Sequence[Sequence[int]]) -> None:
        """Let others claim them."""
        if groups:
            self.ledger.divide(self.claim, groups)

    def changes(self) -> Iterable[TrialRecord]:
        """What any trainer changed in this job since this process last asked."""
        records, self.warm.seen = self.ledger.changes(self.claim.job_id, self.warm.seen)
        return records

    def record(self, events: Sequence[Event]) -> None:
        """Save the weights that are worth it, then write the rows that point to them, then drop what they replaced.

        LeaseLost where the pack belongs to another by now, StorageFull where there is no room for the weights.
        """
        saved: dict[int, Checkpointed] = {}
        try:
            for event in events:
                if isinstance(event, Finished) and event.checkpoint and event.value is not None:
                    saved |= self._save(event, event.checkpoint, event.value)
            unneeded = self.ledger.record(self.claim, events, saved)
        except ChiffreError:
            self._drop(path for path, _ in saved.values())
            raise
        self._drop(unneeded)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Save the pack, then write the row that points to it.

        Without room for it the pack goes on: it is the pack before that is gone back to.
        """
        self._kept += 1
        path = f"{self.claim.job_id}/packs/{self.claim.pack_id}.{self.claim.epoch}.{self._kept}.safetensors"
        try:
            saved = self.store.write(path, checkpoint_bytes(checkpoint))
        except (StorageFull, StorageAway) as error:
            log.warning("a pack could not be kept", pack=self.claim.pack_id, error=str(error))
            return
        try:
            unneeded = self.ledger.keep(self.claim, checkpoint.card["position"], (path, saved))
        except ChiffreError:
            self._drop([path])
            raise
        self._drop(unneeded)

    def should_stop(self) -> Stop | None:
        """What the supervisor said."""
        return self.orders.stop

    def cancelled(self) -> Collection[int]:
        """What the supervisor said."""
        return self.orders.cancelled

    def _newest_whole(self, checkpoints: Iterable[Artifact]) -> Checkpoint | None:
        """The first of a pack's checkpoints that is what was written; damaged ones are forgotten."""
        for artifact in checkpoints:
            try:
                return checkpoint_of(self.store.read(artifact.path, artifact.sha256), artifact.path)
            except CheckpointError as error:
                log.warning("a pack's checkpoint is damaged", pack=self.claim.pack_id, error=str(error))
                self.ledger.discard(self.claim, artifact, str(error))
        return None

    def _save(self, event: Finished, checkpoint: Checkpoint, value: float) -> dict[int, Checkpointed]:
        """Save a trial's checkpoint if it is worth keeping."""
        if not self.ledger.worth_keeping(self.claim, event.number, value):
            return {}
        # Pack and epoch in the path keep two claims, and two attempts at a trial, from writing the same file.
        path = f"{self.claim.job_id}/{event.number}.{self.claim.pack_id}.{self.claim.epoch}.safetensors"
        return {event.number: (path, self.store.write(path, checkpoint_bytes(checkpoint)))}

    def _drop(self, paths: Iterable[str]) -> None:
        drop_files(self.store, paths)
