"""The training process: `python -m worker.start worker.trainer FD`, with one end of a pipe as its file descriptor FD.

The worker sends the trainer a pack. The trainer trains with ml, records through the ledger, and answers when the pack
is done. It ends when the pipe closes, so a worker that dies leaves no process behind.
"""

import os
import sys
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

import orjson
import structlog
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, TimeoutError

from ml.errors import ChiffreError, LanesError
from ml.records import Stop
from ml.training.process import device_of, process_settings, warm_up
from worker.artifacts.store import drop_files, store_of
from worker.database.engine import Database
from worker.database.tables import PackPurpose
from worker.errors import LeaseLost, StorageAway, StorageFull
from worker.ledger.leases import Claim
from worker.logs import configure_logging
from worker.prediction.work import predict
from worker.publication.work import publish
from worker.run_off.work import rerun
from worker.settings import settings
from worker.training.work import train
from worker.training.workbench import Handler, Workbench
from worker.uploaded_datasets import DatasetStore

log = structlog.get_logger()


class PipedOrders:
    """The supervisor's orders, read from the pipe by a thread while the main thread trains."""

    def __init__(self, pipe: Connection) -> None:
        self.packs: SimpleQueue[Claim] = SimpleQueue()
        self.stop: Stop | None = None
        self.cancelled: frozenset[int] = frozenset()
        self._pipe = pipe
        Thread(target=self._read, daemon=True).start()

    def next(self) -> Claim:
        """Wait for the next pack to work on, and return its claim."""
        return self.packs.get()

    def _read(self) -> None:
        while True:
            try:
                order = orjson.loads(self._pipe.recv_bytes())
            except (EOFError, OSError):
                os._exit(0)  # the worker is gone
            if "stop" in order:
                self.stop = Stop(order["stop"])
            elif "cancelled" in order:
                self.cancelled = frozenset(order["cancelled"])
            else:
                self.stop, self.cancelled = None, frozenset()
                self.packs.put(Claim(order["pack"], order["job"], order["epoch"], PackPurpose(order["purpose"])))


HANDLERS: dict[PackPurpose, Handler] = {
    PackPurpose.TRAIN: train,
    PackPurpose.RUN_OFF: rerun,
    PackPurpose.PREDICT: predict,
    PackPurpose.PUBLISH: publish,
}

# The answer to each kind of error; the first that fits is sent. Only "failed" and "impossible" count against trials.
ANSWERS: list[tuple[tuple[type[Exception], ...], str]] = [
    ((LeaseLost,), "lost"),
    ((StorageFull,), "full"),
    ((OperationalError, InterfaceError, TimeoutError, StorageAway), "away"),
    ((LanesError,), "impossible"),
    ((ChiffreError,), "failed"),
]


class Trainer:
    """Works on the packs that a training process is lent, one at a time."""

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench

    def work(self, claim: Claim) -> dict[str, Any]:
        """Work on a claimed pack.

        Returns:
            The answer for the worker, with one key. "ended": the handler has ended the pack. "done": the worker must
            end the pack. "released": any worker may continue the pack. "lost", "full", "away", "impossible" or
            "failed": the name in `ANSWERS` of the error that stopped the work, with its text.
        """
        try:
            ended = HANDLERS[claim.purpose](claim, self.bench)
        except Exception as error:
            if (answer := answer_to(error)) is None:
                raise
            if answer == "away":
                log.warning("database or storage away", pack=claim.pack_id, error=str(error))
            return {answer: str(error)}
        if ended:
            return {"ended": claim.pack_id}
        return {"released" if self.bench.orders.stop == Stop.RELEASED else "done": claim.pack_id}


def answer_to(error: Exception) -> str | None:
    """Return the name of the answer to an error; None if it is a mistake in the code."""
    if isinstance(error, InternalError):
        # Postgres ended a transaction that was idle for too long: this process was suspended.
        return "away" if error.connection_invalidated else None
    return next((answer for kinds, answer in ANSWERS if isinstance(error, kinds)), None)


def main() -> None:
    """Work on the packs that the worker sends, until its pipe closes."""
    configure_logging("trainer")
    process_settings()
    warm_up()
    pipe = Connection(int(sys.argv[1]))
    orders = PipedOrders(pipe)
    config = settings()
    store = store_of(config)
    database = Database(config.database, on_unneeded=partial(drop_files, store))
    find = DatasetStore(database, store, config.dataset_cache).find
    try:
        device = device_of(config.device)
    except LanesError as error:  # a fault of this machine, which must not end a job
        log.error("this trainer cannot work", reason=str(error))
        sys.exit(1)
    trainer = Trainer(Workbench(database, store, find, orders, device, config.checkpoint_seconds))
    pipe.send_bytes(orjson.dumps({"ready": device}))
    while True:
        pipe.send_bytes(orjson.dumps(trainer.work(orders.next())))
