"""The process that trains: `python -m worker.trainer FD`, with one end of a pipe as its file FD.

It is told which pack to work on, drives ml, records through the ledger, and answers when the pack is done. It ends when
the pipe does: nothing is left behind by a worker that dies.
"""

import os
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread
from typing import Any

import orjson
import structlog
from sqlalchemy.exc import InterfaceError, InternalError, OperationalError, TimeoutError

from ml.datasets import FindDataset
from ml.errors import ChiffreError, LanesError
from ml.records import Stop
from ml.specs import TuneSpec
from ml.training.lane import TrainingData
from ml.training.process import device_of, process_settings, warm_up
from ml.tuning.search import Search
from ml.tuning.tune import tune_pack
from worker.artifacts.store import Store, store_of
from worker.database.engine import Database
from worker.database.tables import Job, PackPurpose
from worker.errors import LeaseLost, StorageAway, StorageFull
from worker.ledger.job_spec import tune_spec
from worker.ledger.leases import Claim
from worker.ledger.ledger import Ledger
from worker.ledger.transfer import initial_weights
from worker.ledger.uploaded_datasets import DatasetStore
from worker.logs import configure_logging
from worker.prediction.rows import PredictionRows
from worker.prediction.work import predict
from worker.publication.rows import PublicationRows
from worker.publication.work import publish
from worker.run_off.rows import RunOffRows
from worker.run_off.work import rerun
from worker.settings import settings
from worker.training.ledger_book import JobSearch, LedgerBook
from worker.training.training_data import training_data

log = structlog.get_logger()


class PipedOrders:
    """What the supervisor sends, read by a thread while the main one trains."""

    def __init__(self, pipe: Connection) -> None:
        self.packs: SimpleQueue[Claim] = SimpleQueue()
        self.stop: Stop | None = None
        self.cancelled: frozenset[int] = frozenset()
        self._pipe = pipe
        Thread(target=self._read, daemon=True).start()

    def next(self) -> Claim:
        """The next pack to work on; waits for it."""
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


class Trainer:
    """What a training process does with the packs that it is lent."""

    def __init__(
        self,
        database: Database,
        orders: PipedOrders,
        store: Store,
        find: FindDataset,
        device: str,
        checkpoint_seconds: float,
    ) -> None:
        self.ledger = Ledger(database)
        self.publishing = PublicationRows(database)
        self.database = database
        self.orders = orders
        self.store = store
        self.find = find
        self.device = device
        self.checkpoint_seconds = checkpoint_seconds
        self._searches: dict[str, JobSearch] = {}

    def work(self, claim: Claim) -> dict[str, Any]:
        """Work on a claimed pack; the answer says how it went."""
        try:
            if claim.purpose == PackPurpose.PUBLISH:
                publish(claim, self.publishing, self.store, self.find)
                return {"ended": claim.pack_id}
            if claim.purpose == PackPurpose.PREDICT and predict(
                claim, PredictionRows(self.database), self.store, self.orders, self.find
            ):
                return {"ended": claim.pack_id}
            if claim.purpose == PackPurpose.TRAIN:
                self.train(claim)
            if claim.purpose == PackPurpose.RUN_OFF:
                self.rerun(claim)
        except LeaseLost:
            return {"lost": claim.pack_id}
        except StorageFull as error:
            return {"full": str(error)}
        except (OperationalError, InterfaceError, TimeoutError, StorageAway) as error:  # nobody is charged
            log.warning("database or storage away", pack=claim.pack_id, error=str(error))
            return {"away": claim.pack_id}
        except InternalError as error:  # Postgres ended a transaction that did nothing for too long: we were suspended
            if not error.connection_invalidated:
                raise
            return {"away": claim.pack_id}
        except LanesError as error:
            return {"impossible": str(error)}
        except ChiffreError as error:
            return {"failed": str(error)}
        return {"released" if self.orders.stop == Stop.RELEASED else "done": claim.pack_id}

    def train(self, claim: Claim) -> None:
        """Train the pack's trials, and those of the job that can train beside them."""
        warm = self._search(claim.job_id)
        spec = warm.search.spec
        data = self._data(spec, spec.seed)
        book = LedgerBook(self.ledger, claim, warm, self.orders, self.store, self.checkpoint_seconds)
        tune_pack(spec, data, book, warm.search)

    def rerun(self, claim: Claim) -> None:
        """Train the pack's finalists again, on the cut that is theirs."""
        warm = self._search(claim.job_id)
        book = LedgerBook(self.ledger, claim, warm, self.orders, self.store, self.checkpoint_seconds)
        rerun(book, warm.search.spec, RunOffRows(self.database), self._data)

    def _data(self, spec: TuneSpec, cut_seed: int) -> TrainingData:
        """What trials of a job train and validate on, and begin with."""
        dataset = self.find(spec.dataset.name)
        data = training_data(dataset, spec.split, cut_seed, self.device).first(spec.images)
        if spec.init_from is None:
            return data
        return data.beginning_with(initial_weights(self.database, self.store, spec.init_from))

    def _search(self, job_id: str) -> JobSearch:
        if job_id not in self._searches:
            with self.database.reading() as session:
                spec = tune_spec(session, session.get_one(Job, job_id))
            # Of other jobs only the last few are kept: 5,000 trials rebuild in under a second.
            self._searches = dict(list(self._searches.items())[-7:])
            self._searches[job_id] = JobSearch(Search(spec))
        return self._searches[job_id]


def main() -> None:
    """Answer the worker until its pipe closes."""
    configure_logging("trainer")
    process_settings()
    warm_up()
    pipe = Connection(int(sys.argv[1]))
    orders = PipedOrders(pipe)
    config = settings()
    database, store = Database(config.database), store_of(config)
    find = DatasetStore(database, store, config.dataset_cache).find
    try:
        device = device_of(config.device)
    except LanesError as error:  # of this machine, and no reason to end a job
        log.error("this trainer cannot work", reason=str(error))
        sys.exit(1)
    trainer = Trainer(database, orders, store, find, device, config.checkpoint_seconds)
    pipe.send_bytes(orjson.dumps({"ready": device}))
    while True:
        pipe.send_bytes(orjson.dumps(trainer.work(orders.next())))


if __name__ == "__main__":
    main()
