"""A job's winner becomes a version: its graph checked, its calibration fitted, its speed measured, its test taken."""

from dataclasses import dataclass
from io import BytesIO
from statistics import median
from time import perf_counter

import numpy as np
import torch

from ml.artifacts import checkpoint_of
from ml.calibrating import fit, judged
from ml.calibration import Calibration
from ml.errors import CheckpointError
from ml.evaluate import Images, evaluate, probabilities
from ml.export import exported
from ml.graph import onnx_bytes, with_novelty
from ml.layers import from_json, parameter_count, trains_alone
from ml.modules import module_of
from ml.novelty import Novelty
from ml.predict import Predictor
from ml.records import Checkpoint
from worker.environment import environment
from worker.errors import LeaseLost
from worker.images import novelty_of, test_images, training_data
from worker.leases import Claim
from worker.ledger import tune_spec
from worker.publishing import Published, Publishing
from worker.rerun import decide
from worker.rerunning import Rerunning
from worker.store import Store, drop_files

MAX_GRAPH_ERROR = 1e-5  # difference of probabilities between torch and ONNX Runtime that publication accepts
CHECKED = 1000  # validation images that it is looked for on
WARM_RUNS, TIMED_RUNS = 20, 200  # of one image


@dataclass(frozen=True)
class Candidate:
    """A trained network as it is going to serve, and as torch has it."""

    module: torch.nn.Module
    onnx: bytes
    predictor: Predictor
    weights: int

    @classmethod
    def of(cls, checkpoint: Checkpoint, novelty: Novelty) -> "Candidate":
        """The network of a checkpoint, with what tells its data set's images from others."""
        layers, shape = from_json(checkpoint.card["layers"]), tuple(checkpoint.card["shape"])
        module = module_of(layers, init_seed=0)
        module.load_state_dict({name: torch.from_numpy(array) for name, array in checkpoint.weights.items()})
        bare = exported(module, shape) if trains_alone(layers) else onnx_bytes(layers, checkpoint.weights, shape)
        onnx = with_novelty(bare, novelty.layers, novelty.weights)
        return cls(module, onnx, Predictor(onnx, shape, tuple(checkpoint.card["classes"])), parameter_count(layers))

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
        """The median seconds of a run with one image, on one thread."""
        pixels = _scaled(images[:1])
        for _ in range(WARM_RUNS):
            self.predictor.run(pixels)
        return median(_seconds(self.predictor, pixels) for _ in range(TIMED_RUNS))


def publish(claim: Claim, publishing: Publishing, store: Store) -> None:
    """Turn the winner of the claimed pack's job into a version; the test images are opened once.

    Where its checkpoint is damaged, it is trained again instead. LeaseLost where the pack is another's by now.
    """
    decide(claim, Rerunning(publishing.database), store)
    winner = publishing.winner(claim)
    try:
        content = store.read(winner.checkpoint.path, winner.checkpoint.sha256)
        checkpoint = checkpoint_of(content, winner.checkpoint.path)
    except CheckpointError as error:
        publishing.discard(claim, winner, str(error))
        return
    spec = tune_spec(winner.job)
    validation = training_data(spec.dataset, spec.split, spec.seed, "cpu").validation
    candidate = Candidate.of(checkpoint, novelty_of(spec.dataset, spec.split, spec.seed))
    candidate.check(validation.images[:CHECKED])
    calibration = candidate.calibration(validation)
    latency = candidate.latency(validation.images)
    path = f"{claim.job_id}/{winner.trial.number}.{claim.pack_id}.{claim.epoch}.onnx"
    saved = store.write(path, candidate.onnx)
    publishing.open_test(claim)
    test = test_images(spec.dataset, spec.split)
    test_loss, test_accuracy = evaluate(candidate.module, test, spec.loss)
    outputs, novelty = candidate.predictor.run(_scaled(test.images))
    answers = f"{claim.job_id}/{winner.trial.number}.{claim.pack_id}.{claim.epoch}.test.npy"
    published = Published(
        path,
        saved,
        list(candidate.predictor.shape),
        list(candidate.predictor.classes),
        candidate.weights,
        test_loss if np.isfinite(test_loss) else None,
        test_accuracy,
        judged(calibration, outputs, novelty, test.labels.numpy()).model_dump(),
        latency,
        environment(),
        (answers, store.write(answers, _npy(outputs))),
    )
    try:
        publishing.publish(claim, winner, published)
    except LeaseLost:
        drop_files(store, [path, answers])
        raise


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
