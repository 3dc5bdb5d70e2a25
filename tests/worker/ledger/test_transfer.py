"""Jobs with uploaded data sets, and jobs that begin with a version's weights, in real training processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from sqlmodel import col
from support.worker_tools import Work

from ml.artifacts import load_checkpoint
from ml.datasets import Arrays, datasets
from ml.errors import CheckpointError, SpecError
from ml.records import Checkpoint
from ml.specs import TrainSpec
from tests.api.tools import publish
from worker.artifacts.store import store_of
from worker.database.tables import Artifact, Job, ModelVersion, Trial
from worker.ledger.job_spec import spec_of
from worker.ledger.transfer import fresh_of, initial_weights
from worker.settings import settings
from worker.supervision.supervisor import Supervisor
from worker.uploaded_datasets import DatasetStore


@pytest.fixture
def uploaded(work: Work, environment: Path) -> DatasetStore:
    """Return the store of uploaded data sets."""
    return DatasetStore(work.database, store_of(settings()), settings().dataset_cache)


def bars() -> Arrays:
    """Return a hundred images of 9×12 pixels in three colours, with a bar at the top, in the middle or below."""
    rng = np.random.default_rng(0)
    labels = (np.arange(100) % 3).astype(np.uint8)
    images = rng.integers(0, 60, (100, 3, 9, 12), np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 3 * label : 3 * label + 3] += np.uint8(150)
    return Arrays(images, labels)


def checkpoint(work: Work, folder: Path, version: ModelVersion) -> Checkpoint:
    """Return the checkpoint of a version."""
    with work.database.reading() as session:
        return load_checkpoint(folder / session.get_one(Artifact, version.checkpoint_id).path)


def version_of(work: Work, job: Job) -> ModelVersion:
    """Return the version of a job's winner."""
    with work.database.reading() as session:
        return session.scalars(select(ModelVersion).where(col(ModelVersion.job_id) == job.id)).one()


@pytest.mark.long
def test_a_training_process_fetches_an_uploaded_data_set(
    work: Work, supervisor: Supervisor, uploaded: DatasetStore
) -> None:
    """The published version has its size, colours and classes, and a verified copy is kept."""
    added, _ = uploaded.add("bars", bars(), ("top", "middle", "bottom"))
    params = {"hidden_size": 16, "batch_size": 8, "learning_rate": 0.01}
    spec = {"model": "shallow", "dataset": "bars", "params": params, "budget": {"epochs": 8}}
    job = work.ledger.accept(TrainSpec.of(spec, uploaded.find))
    supervisor.work()
    version = version_of(work, job)
    (copy,) = settings().dataset_cache.iterdir()

    assert (job.dataset, job.dataset_sha256) == ("bars@1", added.sha256)
    assert (version.shape, version.classes) == ([3, 9, 12], ["top", "middle", "bottom"])
    assert version.val_accuracy == 1
    assert copy.name == f"{added.sha256}.safetensors"


def test_a_damaged_copy_is_fetched_again_and_a_damaged_original_is_an_error(
    uploaded: DatasetStore, environment: Path
) -> None:
    """Both are compared with their hash at every read."""
    added, _ = uploaded.add("bars", bars(), ("top", "middle", "bottom"))
    first = uploaded.find("bars").load()
    (copy,) = settings().dataset_cache.iterdir()
    copy.write_bytes(copy.read_bytes()[:-1] + b"\xff")
    second = uploaded.find("bars@1").load()
    copy.unlink()
    (environment / added.path).write_bytes(b"")

    assert first.sha256() == second.sha256() == bars().sha256() == added.sha256
    with pytest.raises(CheckpointError, match="damaged"):
        uploaded.find("bars@1").load()


@pytest.mark.long
def test_a_job_begins_with_a_versions_weights_and_keeps_the_frozen_ones(
    work: Work, supervisor: Supervisor, uploaded: DatasetStore, environment: Path
) -> None:
    """On a data set with fewer classes, the last layer starts with fresh weights, and the record names it."""
    publish(work, environment, "shallow", seed=3)
    digits = datasets["digits"].load()
    few = digits.take(np.flatnonzero(digits.labels < 4))
    uploaded.add("four", few, tuple("0123"))
    space = {"learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2}, "batch_size": 16}
    init = {"model": "shallow", "version": 1, "freeze": 1}
    budget = {"trials": 2, "epochs": 2}
    job = work.accept(model="shallow", dataset="four", search_space=space, init_from=init, budget=budget, lanes=2)
    supervisor.work()
    source = checkpoint(work, environment, version_of(work, work.job(first_job(work))))
    found = checkpoint(work, environment, version_of(work, job))
    with work.database.reading() as session:
        trial = session.scalars(select(Trial).where(col(Trial.job_id) == job.id)).first()
        assert trial is not None
        fresh = fresh_of(session, work_spec(work, job), trial.params or {})

    assert np.array_equal(found.weights["1.weight"], source.weights["1.weight"])
    assert np.array_equal(found.weights["1.bias"], source.weights["1.bias"])
    assert found.weights["3.weight"].shape == (4, 128)
    assert fresh == found.card["fresh"] == ["3.weight", "3.bias"]
    assert job.spec["init_from"]["checkpoint_sha256"] is not None
    again = {"model": "shallow", "version": 2}  # which began with version 1
    with pytest.raises(SpecError, match="shallow 1 was trained on images that would judge this job"):
        work.accept(model="shallow", dataset="mnist", search_space=space, seed=9, init_from=again)


def first_job(work: Work) -> Job:
    """Return the job that was posted first."""
    with work.database.reading() as session:
        return session.scalars(select(Job).order_by(col(Job.created_at))).first()  # type: ignore[return-value]


def work_spec(work: Work, job: Job) -> Any:
    """Return a job's specification."""
    with work.database.reading() as session:
        return spec_of(session, work.job(job))


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "no network": ({"init_from": {"model": "\0", "version": 1}}, ("init_from", "model")),
    "no version": ({"init_from": {"model": "shallow", "version": 7}}, ("init_from", "version")),
    "other weights": (
        {"init_from": {"model": "shallow", "version": 1, "checkpoint_sha256": "0" * 64}},
        ("init_from", "checkpoint_sha256"),
    ),
    "nothing fits": ({"model": "perceptron", "init_from": {"model": "shallow", "version": 1}}, ("init_from",)),
    "all frozen": ({"init_from": {"model": "shallow", "version": 1, "freeze": 2}}, ("init_from", "freeze")),
    "no such layer": ({"init_from": {"model": "shallow", "version": 1, "freeze": ["2"]}}, ("init_from", "freeze")),
    "frozen and of any width": (
        {
            "search_space": {"hidden_size": {"type": "int", "low": 64, "high": 128}},
            "init_from": {"model": "shallow", "version": 1, "freeze": 1},
        },
        ("init_from", "freeze"),
    ),
    "another cut of the same images": (
        {"dataset": "mnist", "seed": 5, "init_from": {"model": "shallow", "version": 1}},
        ("init_from", "version"),
    ),
    "a run-off on the same images": (
        {"dataset": "mnist", "init_from": {"model": "shallow", "version": 1}, "run_off": {"top": 2, "seeds": 2}},
        ("run_off",),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_job_that_cannot_begin_with_a_version_is_refused(work: Work, tmp_path: Path, name: str) -> None:
    """The error names the field of the specification, and no job is written."""
    fields, where = WRONG[name]
    publish(work, tmp_path, "shallow")
    space = {"learning_rate": 0.01}
    with pytest.raises(SpecError) as caught:
        work.accept(**{"model": "shallow", "search_space": space, **fields})

    assert [problem.path for problem in caught.value.problems] == [where]


def test_no_job_begins_with_damaged_weights(work: Work, environment: Path) -> None:
    """Their hash is verified when they are read."""
    version = publish(work, environment, "shallow")
    job = work.accept(
        model="shallow", search_space={"learning_rate": 0.01}, init_from={"model": "shallow", "version": 1}
    )
    init_from = work_spec(work, job).init_from
    (file,) = (environment / version.job.id).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1] + b"\xff")

    assert init_from.checkpoint_sha256 == version.checkpoint_sha256
    with pytest.raises(CheckpointError, match="damaged"):
        initial_weights(work.database, store_of(settings()), init_from)
