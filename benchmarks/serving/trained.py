"""A trained network to serve: trained in plain torch within seconds, recorded and published by Chiffre's code."""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import numpy as np
from sqlalchemy import select
from torch import nn

from benchmarks.lanes.baselines import CarefulBaseline, batches_of
from ml.artifacts import save_checkpoint
from ml.datasets import data_split, datasets
from ml.errors import ChiffreError
from ml.layers import to_json
from ml.network.evaluate import evaluate, scaled
from ml.networks import networks
from ml.optimizers import Adam
from ml.prediction.predictor import Predictor
from ml.records import Checkpoint, Finished, Measured, RungResult, Started, TrialState
from ml.specs import TrainSpec
from ml.training.lane import TrainingData
from worker.artifacts.store import store_of
from worker.database.engine import Database
from worker.database.migrations import migrate
from worker.database.tables import Artifact, ModelVersion
from worker.ledger.leases import Claim, Leases
from worker.ledger.ledger import Ledger
from worker.settings import Settings
from worker.trainer import Trainer
from worker.training.workbench import Workbench

DATASET = datasets["mnist"]
BATCH_SIZE, STEPS = 100, 504  # one epoch, as accuracy does not change the speed of answers


@dataclass(frozen=True)
class Trained:
    """The only version of a home, with its files and its predictor in this process."""

    network: str
    home: Path
    weights: Path  # the checkpoint, a safetensors file
    predictor: Predictor
    test_accuracy: float


def train(network: str, home: Path) -> Trained:
    """Train a network for one epoch and publish it.

    Raises:
        ChiffreError: if publication fails.
    """
    config = Settings(home=home, database_url=None, broker_url=None, artifacts=None)
    home.mkdir(parents=True)
    database, store = Database(config.database), store_of(config)
    migrate(database)
    ledger, leases = Ledger(database), Leases(database, "benchmarks.serving", config.lease_seconds)
    ledger.accept(TrainSpec(model=network, dataset="mnist"))
    _record(ledger, leases, network, Path(config.artifact_store))
    orders = cast("Any", None)  # publication asks for no orders
    trainer = Trainer(Workbench(database, store, datasets.__getitem__, orders, "cpu", config.checkpoint_seconds))
    answer = trainer.work(_claimed(leases))
    if "ended" not in answer:
        raise ChiffreError(f"the network was not published: {answer}")
    with database.reading() as session:
        version = session.scalars(select(ModelVersion)).one()  # a job of one trial has only one version
        onnx, checkpoint = (session.get_one(Artifact, of) for of in (version.onnx_id, version.checkpoint_id))
    database.close()
    predictor = Predictor(store.read(onnx.path, onnx.sha256), DATASET.shape, DATASET.classes)
    return Trained(network, home, Path(config.artifact_store) / checkpoint.path, predictor, version.test_accuracy)


def test_images(number: int) -> np.ndarray:
    """Return images on which no network was trained, uint8 [number, 1, 28, 28]."""
    tested = data_split(DATASET.size, DATASET.official_test, "random", seed=0).test
    return DATASET.load().images[tested[:number]]


def _record(ledger: Ledger, leases: Leases, network: str, artifacts: Path) -> None:
    """Train the only trial of the waiting job, and record its end."""
    claim = _claimed(leases)
    module, measurement = _learned(network)
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    layers = networks[network].layers(DATASET.shape, len(DATASET.classes), networks[network].params())
    card = {"layers": to_json(layers), "shape": list(DATASET.shape), "classes": list(DATASET.classes)}
    checkpoint = Checkpoint(weights, card)
    path = f"{claim.job_id}/0.safetensors"
    saved = save_checkpoint(artifacts / path, checkpoint)
    value, params = measurement.val_accuracy, networks[network].params(batch_size=BATCH_SIZE).model_dump()
    events = [
        Started(0, params, {}, {}, init_seed=0, stream_seed=0, start_step=0),
        Measured(0, measurement, {}),
        Finished(0, TrialState.COMPLETED, "all epochs", measurement, value, checkpoint),
    ]
    ledger.record(claim, events, {0: (path, saved)})
    leases.close(claim)


def _learned(network: str) -> tuple[nn.Module, RungResult]:
    """Return a module after one epoch, and its results on the validation images."""
    data, began = TrainingData.load(DATASET, "random", 0), perf_counter()
    layers = networks[network].layers(DATASET.shape, len(DATASET.classes), networks[network].params())
    batches = batches_of(len(data.train), BATCH_SIZE, seed=0)
    loop = CarefulBaseline(layers, Adam(), scaled(data.train.images), data.train.labels, batches)
    for _ in range(STEPS):
        loop.step()
    loss, accuracy = evaluate(loop.model, data.validation, "cross_entropy")
    seen, took = STEPS * BATCH_SIZE, perf_counter() - began
    return loop.model, RungResult(10, seen, loss, loss, accuracy, took)


def _claimed(leases: Leases) -> Claim:
    claim = leases.claim()
    if claim is None:
        raise ChiffreError("there is no pack to claim: the job was not accepted, or another worker has claimed it")
    return claim
