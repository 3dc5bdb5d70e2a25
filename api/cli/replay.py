"""`chiffre replay`: train a trial of a job again on this machine, and compare it with the record."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from api.cli.remote_datasets import remote_dataset
from api.client import Chiffre
from api.connection import ApiError
from ml.artifacts import checkpoint_of
from ml.datasets import Dataset
from ml.records import RungResult, step_of
from ml.specs import TrainSpec, TuneSpec
from ml.training.lane import TrainingData
from ml.training.process import process_settings
from ml.training.replay import Recipe, replay


@dataclass(frozen=True)
class Rung:
    """A measurement of the recorded trial and of its replay."""

    epoch: float
    recorded_loss: float | None
    found_loss: float | None
    recorded_accuracy: float | None
    found_accuracy: float | None

    @property
    def points(self) -> float | None:
        """Difference of the two accuracies in percentage points; None if a training diverged."""
        if self.recorded_accuracy is None or self.found_accuracy is None:
            return None
        return 100 * abs(self.found_accuracy - self.recorded_accuracy)


def replay_trial(client: Chiffre, job_id: str, number: int) -> Iterator[Rung]:
    """Train trial `number` of a job again and yield each measurement.

    Raises:
        ApiError: if the trial was never measured, or this release cannot read the job's specification.

    """
    job, trial = client.job(job_id), client.trial(job_id, number)
    recorded = {step_of(m["epoch"]): m for m in trial["measurements"]}
    if not recorded:
        raise ApiError(
            f"trial {number} is {trial['state']} and was never measured, so there is nothing to compare with"
        )
    dataset = remote_dataset(client, job["dataset"])
    spec = _spec(job, dataset)
    process_settings()
    data = TrainingData.load(dataset, spec.split, spec.seed).first(spec.images)
    if spec.init_from is not None:
        content = client.download(spec.init_from.model, spec.init_from.version)
        data = data.beginning_with(checkpoint_of(content, "the version's checkpoint").weights)
    for found in replay(spec, _recipe(trial, max(recorded)), data):
        yield _rung(recorded.get(found.step, {}), found)


def _spec(job: dict[str, Any], dataset: Dataset) -> TuneSpec:
    """Return a job's specification as a search.

    Raises:
        ApiError: if this release cannot read it.

    """
    try:
        kind = TrainSpec if job["kind"] == "train" else TuneSpec
        spec: TrainSpec | TuneSpec = kind.model_validate({**job["spec"], "dataset": dataset})
        return spec.under(job.get("rules", 1)).as_tune()  # a service of release 0.2 names none
    except ValidationError as error:
        raise ApiError(f"this release of chiffre cannot read the job's specification: {error}") from None


def _recipe(trial: dict[str, Any], until: int) -> Recipe:
    names = ("number", "params", "init_seed", "stream_seed", "start_step")
    return Recipe(**{name: trial[name] for name in names}, until=until)


def _rung(recorded: dict[str, Any], found: RungResult) -> Rung:
    return Rung(
        epoch=found.epoch,
        recorded_loss=recorded.get("val_loss"),
        found_loss=found.val_loss,
        recorded_accuracy=recorded.get("val_accuracy"),
        found_accuracy=found.val_accuracy,
    )
