"""The work of publication: check a winner's graph, fit its calibration, measure its speed, and test it.

The other trials of its front go through the same steps, except the test: test images are opened for the winner alone.
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

from ml.artifacts import checkpoint_of
from ml.datasets import Dataset
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
from worker.artifacts.new_files import NewFiles, Stored
from worker.artifacts.store import Store
from worker.environment import environment
from worker.ledger.job_spec import tune_spec
from worker.ledger.leases import Claim
from worker.publication.rows import Chosen, PublicationRows, Published
from worker.run_off.work import decide
from worker.training.training_data import novelty_of, test_images, training_data
from worker.training.workbench import Workbench

MAX_GRAPH_ERROR = 1e-5  # difference of probabilities between torch and ONNX Runtime that publication accepts
CHECKED = 1000  # validation images of that comparison
WARM_RUNS = 20  # of one image, before the first round
ROUNDS, TIMED_RUNS = 5, 40  # timed runs of one image in each round

log = structlog.get_logger()


@dataclass(frozen=True)
class Candidate:
    """A trained network as torch module and as the ONNX graph that will serve."""

    module: torch.nn.Module
    onnx: bytes
    predictor: Predictor
    weights: int
    architecture: str  # SHA-256 of the layers; networks that share it take the same time

    @classmethod
    def of(cls, checkpoint: Checkpoint, novelty: Novelty) -> "Candidate":
        """Return the network of a checkpoint, with the layers that tell its data set's images from others."""
        layers, shape = from_json(checkpoint.card["layers"]), tuple(checkpoint.card["shape"])
        module = module_of(layers, init_seed=0)
        module.load_state_dict({name: torch.from_numpy(array) for name, array in checkpoint.weights.items()})
        bare = exported(module, shape) if trains_alone(layers) else onnx_bytes(layers, checkpoint.weights, shape)
        onnx = with_novelty(bare, novelty.layers, novelty.weights)
        predictor = Predictor(onnx, shape, tuple(checkpoint.card["classes"]))
        return cls(module, onnx, predictor, parameter_count(layers), architecture_of(layers, novelty.layers, shape))

    def check(self, images: torch.Tensor) -> None:
        """Check that the graph answers as torch does.

        Args:
            images: uint8 [n, channels, height, width].

        Raises:
            CheckpointError: if a probability differs by more than MAX_GRAPH_ERROR.
        """
        served = self.predictor.probabilities(_scaled(images))
        error = float(np.abs(served - probabilities(self.module, images)).max())
        if not error <= MAX_GRAPH_ERROR:
            raise CheckpointError(f"the ONNX graph differs from torch by {error:.1e} in probability; report this")

    def calibration(self, validation: Images) -> Calibration:
        """Return the calibration that these images give: when its answers can be trusted."""
        return fit(*self.predictor.run(_scaled(validation.images)), validation.labels.numpy())

    def latency(self, images: torch.Tensor) -> float:
        """Return the seconds of one run with one image on one thread: the lowest of several rounds' medians.

        In the round with the lowest median, other processes used the trainer's core least.
        """
        pixels = _scaled(images[:1])
        for _ in range(WARM_RUNS):
            self.predictor.run(pixels)
        return min(median(_seconds(self.predictor, pixels) for _ in range(TIMED_RUNS)) for _ in range(ROUNDS))


class VersionBuilder:
    """Makes a job's trials ready to become versions."""

    def __init__(self, claim: Claim, spec: TuneSpec, dataset: Dataset, files: NewFiles, rows: PublicationRows) -> None:
        self.claim = claim
        self.spec = spec
        self.dataset = dataset
        self.files = files
        self.rows = rows
        self.validation = training_data(dataset, spec.split, spec.seed, "cpu").first(spec.images).validation
        self.novelty = novelty_of(dataset, spec.split, spec.seed, spec.images)
        self._latencies: dict[str, float] = {}  # by architecture

    def made(self, chosen: Chosen, checkpoint: Checkpoint) -> tuple[Candidate, Published]:
        """Store a trial's graph; return its network and the facts to publish.

        Raises:
            CheckpointError: if the graph does not answer as torch does.
        """
        candidate = Candidate.of(checkpoint, self.novelty)
        candidate.check(self.validation.images[:CHECKED])
        calibration = candidate.calibration(self.validation)
        published = Published(
            self._kept(chosen, "onnx", candidate.onnx),
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
        """Test a network, store its outputs, and return its facts with the test's figures added."""
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
        """Return the latency of an architecture, measured here once or taken from a version of a like machine."""
        name = candidate.architecture
        if name not in self._latencies:
            known = self.rows.latency(name, environment())
            self._latencies[name] = candidate.latency(self.validation.images) if known is None else known
        return self._latencies[name]

    def _kept(self, chosen: Chosen, ending: str, content: bytes) -> Stored:
        path = f"{self.claim.job_id}/{chosen.trial.number}.{self.claim.pack_id}.{self.claim.epoch}.{ending}"
        return self.files.write(path, content)

    def others(self, front: list[Chosen]) -> list[tuple[Chosen, Published]]:
        """Return the trials of a front that pass all checks, with the facts to publish."""
        found = []
        for chosen in front:
            try:
                found.append((chosen, self.made(chosen, _read(self.files.store, chosen))[1]))
            except CheckpointError as error:  # the winner is published all the same
                log.warning("a trial of the front was not published", trial=chosen.trial.number, error=str(error))
        return found


def publish(claim: Claim, bench: Workbench) -> bool:
    """Decide the run-off of a claimed pack's job, turn the winner into a version, and end the job.

    The test images are opened once. A winner whose checkpoint is damaged is trained again instead.

    Raises:
        LeaseLost: if another worker has claimed the pack or the job was cancelled.
    """
    decide(claim, bench)
    rows = PublicationRows(bench.database)
    winner = rows.winner(claim)
    try:
        checkpoint = _read(bench.store, winner)
    except CheckpointError as error:
        rows.discard(claim, winner, str(error))
        return True
    with bench.database.reading() as session:
        spec = tune_spec(session, winner.job)
    with NewFiles(bench.store) as files:
        builder = VersionBuilder(claim, spec, bench.find(spec.dataset.name), files, rows)
        candidate, published = builder.made(winner, checkpoint)
        others = builder.others(rows.front(claim, winner))
        rows.open_test(claim)
        published = builder.tested(winner, candidate, published)
        rows.publish(claim, winner, published, others)
    return True


def architecture_of(layers: list[Layer], novelty: list[Layer], shape: Shape) -> str:
    """Return a SHA-256 of the layers that compute an answer for an image of a shape; dropout has no part in it."""
    computing = [layer for layer in layers if not isinstance(layer, Dropout)]
    described = json.dumps([to_json(computing), to_json(novelty), shape])
    return sha256(described.encode()).hexdigest()


def _read(store: Store, chosen: Chosen) -> Checkpoint:
    """Return a trial's checkpoint.

    Raises:
        CheckpointError: if it is missing or damaged.
    """
    path = chosen.checkpoint.path
    return checkpoint_of(store.read(path, chosen.checkpoint.sha256), path)


def _scaled(images: torch.Tensor) -> np.ndarray:
    """Return pixels as a graph takes them: float32 in 0..1."""
    return images.numpy().astype(np.float32) / 255


def _npy(outputs: np.ndarray) -> bytes:
    """Return an array as the content of an .npy file."""
    file = BytesIO()
    np.save(file, outputs, allow_pickle=False)
    return file.getvalue()


def _seconds(predictor: Predictor, pixels: np.ndarray) -> float:
    started = perf_counter()
    predictor.run(pixels)
    return perf_counter() - started
