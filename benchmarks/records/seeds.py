"""One seed of a record: a model of a frozen spec, trained as `POST /jobs/train` would train it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch

from benchmarks.records.verdict import packed
from benchmarks.results import taken
from ml.artifacts import load_checkpoint, save_checkpoint
from ml.datasets import Arrays, DataSplit, data_split
from ml.network.evaluate import Images, probabilities
from ml.network.modules import module_of
from ml.parameters.params import Params
from ml.records import Checkpoint
from ml.seeds import SeedPurpose, derive
from ml.specs import TrainSpec
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack

CHECKPOINT_SECONDS = (
    60.0  # minimum between checkpoints: on a GPU, an epoch of a wide network takes less time than its checkpoint
)


@dataclass(frozen=True)
class Seed:
    """A spec with its seed, and its data set."""

    spec: TrainSpec
    arrays: Arrays
    most: int | None  # images for training, and as many for validation and test; None: all
    device: str = "cpu"  # or cuda

    @cached_property
    def data_split(self) -> DataSplit:
        """The split into training, validation and test images."""
        whole = data_split(len(self.arrays), self.spec.dataset.official_test, self.spec.split, self.spec.seed)
        return DataSplit(*(indices[: self.most] for indices in (whole.train, whole.validation, whole.test)))

    @property
    def params(self) -> Params:
        """All hyper-parameters."""
        return self.spec.network.params.model_validate(self.spec.params)

    def train(self, place: Path) -> dict[str, Any]:
        """Train the seed, and return its record. Meanwhile `place` holds the checkpoint from which it can resume.

        Raises:
            SystemExit: if training diverged.
        """
        pack, seconds = self._started(place)
        saved = monotonic()
        (lane,) = pack.running
        for ((_, measured),) in pack.run(lambda: False):
            seconds += measured.seconds
            progress = (
                f"seed {self.spec.seed} epoch {measured.epoch:g}: validation {measured.val_accuracy}, {seconds:.0f} s"
            )
            print(progress, flush=True)
            if lane.running and monotonic() - saved >= CHECKPOINT_SECONDS:
                left = pack.checkpoint()
                save_checkpoint(place, Checkpoint(left.weights, left.card | {"seconds": seconds}))
                saved = monotonic()
        if lane.best is None:
            raise SystemExit(f"seed {self.spec.seed} {lane.state}: {lane.reason}")
        reached = {"val_accuracy": lane.best.val_accuracy, "epoch": lane.best.epoch, "seconds": seconds}
        gpu = torch.cuda.get_device_name() if self.device == "cuda" else None
        return {"seed": self.spec.seed, **reached, **taken(), "gpu": gpu, "said": packed(self._predicted(lane))}

    def _started(self, place: Path) -> tuple[LanePack, float]:
        """Return the pack, resumed from its checkpoint if there is one, and the seconds that it has trained."""
        parts = (
            Images.of(self.arrays.take(indices)) for indices in (self.data_split.train, self.data_split.validation)
        )
        data = TrainingData(*parts).to(self.device)
        spec, seed = self.spec.as_tune(), self.spec.seed
        left = load_checkpoint(place) if place.exists() else None
        if left is not None and left.card["spec"] == spec.model_dump(mode="json"):  # otherwise the preset has changed
            return LanePack.resumed(left, data), left.card["seconds"]
        pack = LanePack.of(spec, data, self.params, derive(seed, SeedPurpose.STREAM, 0))
        pack.join(Lane(0, spec, self.params, derive(seed, SeedPurpose.INIT, 0), pack.stream.seed))
        return pack, 0.0

    def _predicted(self, lane: Lane) -> np.ndarray:
        """Return the labels that the weights of the best epoch predict for the test images, uint8 [n]."""
        module = module_of(self.spec.layers(self.params), 0)
        module.load_state_dict(lane.best_weights)
        return (
            probabilities(module, torch.from_numpy(self.arrays.images[self.data_split.test])).argmax(1).astype(np.uint8)
        )
