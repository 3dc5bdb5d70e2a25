"""A job's winner becomes a version: its graph checked, its calibration fitted, its speed measured, its test taken.

So do the other trials of its front, but for the test: the images of that are opened for the winner alone.
"""

import json
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from statistics import median
from time import perf_counter

import numpy as np
import structlog
import torch

from ml.artifacts import Saved, checkpoint_of
from ml.datasets import Dataset, FindDataset
from ml.errors import CheckpointError
from ml.layers import Dropout, Layer, Shape, from_json, parameter_count, to_json, trains_alone
from ml.network.evaluate import Images, evaluate, probabilities
from ml.network.modules import module_of
from ml.network.onnx_graph import onnx_bytes, with_novelty
from ml.network.torch_export import exported
from ml.prediction.calibration import Calibration
from ml.prediction.calibration_fit import fit, judged
from ml.prediction.novelty import Novelty
from ml.prediction.predictor import Predictor
from ml.records import Checkpoint
from ml.specs import TuneSpec
from worker.artifacts.store import Store, drop_files
from worker.environment import environment
from worker.errors import LeaseLost
from worker.ledger.job_spec import tune_spec
from worker.ledger.leases import Claim
from worker.publication.rows import Chosen, PublicationRows, Published
from worker.run_off.rows import RunOffRows
from worker.run_off.work import decide
from worker.training.training_data import novelty_of, test_images, training_data

MAX_GRAPH_ERROR = 1e-5  # difference of probabilities between torch and ONNX Runtime that publication accepts
CHECKED = 1000  # validation images that it is looked for on
WARM_RUNS, TIMED_RUNS = 20, 40  # of one image, the latter in each of
ROUNDS = 5

log = structlog.get_logger()


@dataclass(frozen=True)
class Candidate:
    """A trained network as it is going to serve, and as torch has it."""

    module: torch.nn.Module
    onnx: bytes
    predictor: Predictor
    weights: int
    architecture: str  # SHA-256 of what an answer takes: whoever has the same takes as long

    @classmethod
    def of(cls, checkpoint: Checkpoint, novelty: Novelty) -> "Candidate":
        """The network of a checkpoint, with what tells its data set's images from others."""
        layers, shape = from_json(checkpoint.card["layers"]), tuple(checkpoint.card["shape"])
        module = module_of(layers, init_seed=0)
        module.load_state_dict({name: torch.from_numpy(array) for name, array in checkpoint.weights.items()})
        bare = exported(module, shape) if trains_alone(layers) else onnx_bytes(layers, checkpoint.weights, shape)
        onnx = with_novelty(bare, novelty.layers, novelty.weights)
        predictor = Predictor(onnx, shape, tuple(checkpoint.card["classes"]))
        return cls(module, onnx, predictor, parameter_count(layers), architecture_of(layers, novelty.layers, shape))

    def check(self, images: torch.Tensor) -> None:
        """CheckpointError where the graph does not answer as torch does, for images uint8 [n, …]."""
        served = self.predictor.probabilities(_scaled(images))
        error = float(np.abs(served - probabilities(self.module, images)).max())
        if not error <= MAX_GRAPH_ERROR:
            raise CheckpointError(f"the ONNX graph differs from torch by {error:.1e} in probability; report this")

    def calibration(self, validation: Images) -> Calibration:
        """When its answers for these images can be trusted."""
        return fit(*self.predictor.run(_scaled(validation.images)), validation.labels.numpy())

    def latency(self, images: torch.Tensor) -> float:
        """The seconds of a run with one image on one thread: the lowest of several rounds' medians.

        A trainer has a core of its own; the lowest is that of the round in which least else ran on it.
        """
        pixels = _scaled(images[:1])
        for _ in range(WARM_RUNS):
            self.predictor.run(pixels)
        return min(median(_seconds(self.predictor, pixels) for _ in range(TIMED_RUNS)) for _ in range(ROUNDS))


class VersionBuilder:
    """Where the trials of a job are made ready to be versions."""

    def __init__(
        self, claim: Claim, spec: TuneSpec, dataset: Dataset, store: Store, publishing: PublicationRows
    ) -> None:
        self.claim = claim
        self.spec = spec
        self.dataset = dataset
        self.store = store
        self.publishing = publishing
        self.validation = training_data(dataset, spec.split, spec.seed, "cpu").first(spec.images).validation
        self.novelty = novelty_of(dataset, spec.split, spec.seed, spec.images)
        self.written: list[str] = []  # keys of files
        self._latencies: dict[str, float] = {}  # by architecture

    def made(self, chosen: Chosen, checkpoint: Checkpoint) -> tuple[Candidate, Published]:
        """A trial's network and what is known of it, its graph stored; CheckpointError where that is not sound."""
        candidate = Candidate.of(checkpoint, self.novelty)
        candidate.check(self.validation.images[:CHECKED])
        calibration = candidate.calibration(self.validation)
        published = Published(
            *self._kept(chosen, "onnx", candidate.onnx),
            list(candidate.predictor.shape),
            list(candidate.predictor.classes),
            candidate.weights,
            calibration=calibration.model_dump(),
            architecture=candidate.architecture,
            latency_seconds=self._latency(candidate),
            environment=environment(),
        )
        return candidate, published

    def tested(self, chosen: Chosen, candidate: Candidate, published: Published) -> Published:
        """What is known of a network, and how it does on the test images; what it answers for them is stored."""
        test = test_images(self.dataset, self.spec.split)
        test_loss, test_accuracy = evaluate(candidate.module, test, self.spec.loss)
        outputs, novelty = candidate.predictor.run(_scaled(test.images))
        on_test = judged(Calibration.model_validate(published.calibration), outputs, novelty, test.labels.numpy())
        return replace(
            published,
            test_loss=test_loss if np.isfinite(test_loss) else None,
            test_accuracy=test_accuracy,
            calibration=on_test.model_dump(),
            answers=self._kept(chosen, "test.npy", _npy(outputs)),
        )

    def _latency(self, candidate: Candidate) -> float:
        """Measured once an architecture, here or for a version that was published on such a machine before."""
        name = candidate.architecture
        if name not in self._latencies:
            known = self.publishing.latency(name, environment())
            self._latencies[name] = candidate.latency(self.validation.images) if known is None else known
        return self._latencies[name]

    def _kept(self, chosen: Chosen, ending: str, content: bytes) -> tuple[str, Saved]:
        path = f"{self.claim.job_id}/{chosen.trial.number}.{self.claim.pack_id}.{self.claim.epoch}.{ending}"
        saved = self.store.write(path, content)
        self.written.append(path)
        return path, saved

    def others(self, front: list[Chosen]) -> list[tuple[Chosen, Published]]:
        """The trials of a front, each as far as it is sound."""
        found = []
        for chosen in front:
            try:
                found.append((chosen, self.made(chosen, _read(self.store, chosen))[1]))
            except CheckpointError as error:  # the winner is published all the same
                log.warning("a trial of the front is no version", trial=chosen.trial.number, error=str(error))
        return found


def publish(claim: Claim, publishing: PublicationRows, store: Store, find: FindDataset) -> None:
    """Turn the winner of the claimed pack's job into a version; the test images are opened once.

    Where its checkpoint is damaged, it is trained again instead. LeaseLost where the pack is another's by now.
    """
    decide(claim, RunOffRows(publishing.database), store, find)
    winner = publishing.winner(claim)
    try:
        checkpoint = _read(store, winner)
    except CheckpointError as error:
        publishing.discard(claim, winner, str(error))
        return
    with publishing.database.reading() as session:
        spec = tune_spec(session, winner.job)
    bench = VersionBuilder(claim, spec, find(spec.dataset.name), store, publishing)
    candidate, published = bench.made(winner, checkpoint)
    others = bench.others(publishing.front(claim, winner))
    publishing.open_test(claim)
    published = bench.tested(winner, candidate, published)
    try:
        publishing.publish(claim, winner, published, others)
    except LeaseLost:
        drop_files(store, bench.written)
        raise


def architecture_of(layers: list[Layer], novelty: list[Layer], shape: Shape) -> str:
    """A hash of the layers that compute an answer for an image of a shape: dropout only trains."""
    computing = [layer for layer in layers if not isinstance(layer, Dropout)]
    described = json.dumps([to_json(computing), to_json(novelty), shape])
    return sha256(described.encode()).hexdigest()


def _read(store: Store, chosen: Chosen) -> Checkpoint:
    """A trial's checkpoint; CheckpointError where it is damaged."""
    path = chosen.checkpoint.path
    return checkpoint_of(store.read(path, chosen.checkpoint.sha256), path)


def _scaled(images: torch.Tensor) -> np.ndarray:
    """Pixels as a graph takes them: float32 in 0..1."""
    return images.numpy().astype(np.float32) / 255


def _npy(outputs: np.ndarray) -> bytes:
    """An array as the content of an .npy file."""
    file = BytesIO()
    np.save(file, outputs, allow_pickle=False)
    return file.getvalue()


def _seconds(predictor: Predictor, pixels: np.ndarray) -> float:
    started = perf_counter()
    predictor.run(pixels)
    return perf_counter() - started
