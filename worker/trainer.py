"""The process that trains: `python -m worker.trainer FD`, with one end of a pipe as its file FD.

It is told which pack to work on, drives ml, records through the ledger, and answers when the pack is done. It ends when
the pipe does: nothing is left behind by a worker that dies.
"""

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

import numpy as np
import orjson
import structlog
import torch
from sqlalchemy.exc import InterfaceError, OperationalError, TimeoutError

from ml.artifacts import load_checkpoint, save_checkpoint, write
from ml.datasets import SplitName, cut, datasets
from ml.errors import CheckpointError, ChiffreError
from ml.evaluate import Images, evaluate, probabilities
from ml.graph import onnx_bytes
from ml.lanes import module_of
from ml.layers import from_json, parameter_count
from ml.predict import Predictor
from ml.records import Event, Finished, Measured, Started, Stop, TrialRecord
from ml.search import Search
from ml.train import TrainingData, objective
from ml.tune import tune
from worker.db import Database
from worker.errors import LeaseLost
from worker.leases import Claim
from worker.ledger import Ledger, tune_spec
from worker.logs import configure_logging
from worker.publishing import Published, Publishing
from worker.settings import settings
from worker.tables import Job, Purpose

log = structlog.get_logger()

MAX_GRAPH_ERROR = 1e-5  # difference of probabilities between torch and ONNX Runtime that publication accepts


@dataclass
class JobSearch:
    """A job's search, warm from one pack to the next."""

    search: Search
    seen: int = 0  # the job's counter up to which records were applied


@dataclass
class LedgerBook:
    """A claimed pack as ml.tune's book."""

    ledger: Ledger
    claim: Claim
    warm: JobSearch
    orders: "Orders"
    artifacts: Path
    _reserved: list[TrialRecord] | None = field(default=None)

    def reserve(self) -> TrialRecord | None:
        """The next of the pack's trials."""
        if self._reserved is None:
            self._reserved = self.ledger.reservations(self.claim)
        return self._reserved.pop(0) if self._reserved else None

    def changes(self) -> Iterable[TrialRecord]:
        """What any trainer changed in this job since this process last asked."""
        records, self.warm.seen = self.ledger.changes(self.claim.job_id, self.warm.seen)
        return records

    def record(self, event: Event) -> None:
        """Write to the ledger; LeaseLost where the pack belongs to another by now."""
        match event:
            case Started():
                self.ledger.start(self.claim, event)
            case Measured():
                self.ledger.measure(self.claim, event)
            case Finished():
                self._finish(event)

    def should_stop(self) -> Stop | None:
        """What the supervisor said."""
        return self.orders.stop

    def _finish(self, event: Finished) -> None:
        """Save the weights if they lead, then write the row that points to them, then drop what it replaced."""
        value = objective(self.warm.search.spec, event.best)
        saved = None
        if event.checkpoint and value is not None and self.ledger.leads(self.claim, event.number, value):
            # The epoch in the path keeps two claims of the same trial from writing the same file.
            path = f"{self.claim.job_id}/{event.number}.{self.claim.epoch}.safetensors"
            saved = (path, save_checkpoint(self.artifacts / path, event.checkpoint))
        try:
            unneeded = self.ledger.finish(self.claim, event, value, saved)
        except LeaseLost:
            if saved is not None:
                (self.artifacts / saved[0]).unlink(missing_ok=True)
            raise
        for replaced in unneeded:
            (self.artifacts / replaced).unlink(missing_ok=True)


class Orders:
    """What the supervisor sends, read by a thread while the main one trains."""

    def __init__(self, pipe: Connection) -> None:
        self.packs: SimpleQueue[Claim] = SimpleQueue()
        self.stop: Stop | None = None
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
                os._exit(0)  # the worker is gone; whoever claims the pack next starts from what was committed
            if "stop" in order:
                self.stop = Stop(order["stop"])
            else:
                self.stop = None
                self.packs.put(Claim(order["pack"], order["job"], order["epoch"], Purpose(order["purpose"])))


class Trainer:
    """Works on one pack after another, keeping searches and data warm."""

    def __init__(self, database: Database, orders: Orders, artifacts: Path) -> None:
        self.ledger = Ledger(database)
        self.publishing = Publishing(database)
        self.database = database
        self.orders = orders
        self.artifacts = artifacts
        self._searches: dict[str, JobSearch] = {}

    def work(self, claim: Claim) -> dict[str, Any]:
        """Work on a claimed pack; the answer says how it went."""
        try:
            if claim.purpose == Purpose.PUBLISH:
                self.publish(claim)
                return {"published": claim.pack_id}
            self.train(claim)
        except LeaseLost:
            return {"lost": claim.pack_id}
        except (OperationalError, InterfaceError, TimeoutError) as error:  # the database is away; nobody is charged
            log.warning("database away", pack=claim.pack_id, error=str(error))
            return {"released": claim.pack_id}
        except ChiffreError as error:
            return {"failed": str(error)}
        return {"done": claim.pack_id}

    def train(self, claim: Claim) -> None:
        """Train the pack's trials."""
        warm = self._search(claim.job_id)
        spec = warm.search.spec
        data = training_data(spec.dataset, spec.split, spec.seed)
        tune(spec, data, LedgerBook(self.ledger, claim, warm, self.orders, self.artifacts), warm.search)

    def publish(self, claim: Claim) -> None:
        """Turn the job's winner into a version: the graph, checked against torch, and the test images, opened once."""
        winner = self.publishing.winner(claim)
        checkpoint = load_checkpoint(self.artifacts / winner.checkpoint.path, winner.checkpoint.sha256)
        layers, shape = from_json(checkpoint.card["layers"]), tuple(checkpoint.card["shape"])
        module = module_of(layers, init_seed=0)
        module.load_state_dict({name: torch.from_numpy(array) for name, array in checkpoint.weights.items()})
        onnx = onnx_bytes(layers, checkpoint.weights, shape)
        spec = tune_spec(winner.job)
        _check_graph(module, Predictor(onnx, shape, ()), training_data(spec.dataset, spec.split, spec.seed))
        path = f"{claim.job_id}/{winner.trial.number}.{claim.epoch}.onnx"
        self.publishing.open_test(claim)
        test_loss, test_accuracy = evaluate(module, _test_images(spec.dataset, spec.split), spec.loss)
        published = Published(
            path,
            write(self.artifacts / path, onnx),
            list(shape),
            list(checkpoint.card["classes"]),
            parameter_count(layers),
            test_loss if np.isfinite(test_loss) else None,
            test_accuracy,
        )
        try:
            self.publishing.publish(claim, winner, published)
        except LeaseLost:
            (self.artifacts / path).unlink(missing_ok=True)
            raise

    def _search(self, job_id: str) -> JobSearch:
        if job_id not in self._searches:
            with self.database.reading() as session:
                job = session.get_one(Job, job_id)
            # Of other jobs only the last few are kept: 5,000 trials rebuild in under a second.
            self._searches = dict(list(self._searches.items())[-7:])
            self._searches[job_id] = JobSearch(Search(tune_spec(job)))
        return self._searches[job_id]


@lru_cache(maxsize=2)
def training_data(dataset: str, split: SplitName, seed: int) -> TrainingData:
    """The images of a job, kept from one pack to the next."""
    return TrainingData.load(datasets[dataset], split, seed)


def _test_images(dataset: str, split: SplitName) -> Images:
    registered = datasets[dataset]
    arrays = registered.load()
    return Images.of(arrays.take(cut(len(arrays), registered.official_test, split, seed=0).test))


def _check_graph(module: torch.nn.Module, predictor: Predictor, data: TrainingData) -> None:
    """CheckpointError where the ONNX graph does not answer as torch does, on validation images."""
    images = data.validation.images[:1000]
    served = predictor.probabilities(images.numpy().astype(np.float32) / 255)
    error = float(np.abs(served - probabilities(module, images)).max())
    if not error <= MAX_GRAPH_ERROR:
        raise CheckpointError(f"the ONNX graph differs from torch by {error:.1e} in probability; report this")


def main() -> None:
    """Answer the worker until its pipe closes."""
    configure_logging("trainer")
    torch.set_num_threads(1)  # one trainer a core: two threads on a busy core ran up to five times slower than one
    pipe = Connection(int(sys.argv[1]))
    orders = Orders(pipe)
    trainer = Trainer(Database(settings().database), orders, settings().artifact_folder)
    pipe.send_bytes(orjson.dumps({"ready": os.getpid()}))
    while True:
        pipe.send_bytes(orjson.dumps(trainer.work(orders.next())))


if __name__ == "__main__":
    main()
