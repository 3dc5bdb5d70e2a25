"""Publication of the other trials on a job's front, besides the winner."""

from pathlib import Path

import pytest
from sqlalchemy import select
from sqlmodel import col
from support.trained_tools import Training
from support.worker_tools import Work, measurement
from torch import Tensor

from ml.artifacts import Saved, save_checkpoint
from ml.datasets import datasets
from ml.layers import flop_count, parameter_count, to_json
from ml.network.modules import module_of
from ml.networks import networks
from ml.records import Checkpoint, Finished, Measured, Started, TrialState
from worker.database.tables import Artifact, Champion, Job, JobState, ModelVersion, Opening
from worker.publication.work import Candidate, publish

DATASET = datasets["digits"]
# Each trial's value and hidden units, by number. Trial 0 beats trial 2, so the checkpoint of trial 2 is not kept.
TRIALS = [(0.9, 64), (0.95, 128), (0.85, 64), (0.8, 16)]


def sizes(hidden: int) -> dict[str, int]:
    """Return the FLOPs and weights of a shallow network."""
    layers = networks["shallow"].layers(DATASET.shape, 10, networks["shallow"].params(hidden_size=hidden))
    return {"flops": flop_count(layers, DATASET.shape), "weights": parameter_count(layers)}


def run(work: Work, folder: Path, trials: list[tuple[float, int]], recorded: dict[int, int] | None = None) -> str:
    """Run a job of shallow networks up to its publication, without training; return its id.

    `recorded` maps a trial's number to the hidden units that its recorded size pretends to have.
    """
    job = work.accept(model="shallow", budget={"trials": len(trials)}, sampler={"name": "random"}, lanes=1)
    network = networks["shallow"]
    for value, hidden in trials:
        claim = work.leases.claim()
        assert claim is not None
        (record,) = work.reserved(claim)
        params = network.params(hidden_size=hidden)
        layers = network.layers(DATASET.shape, 10, params)
        weights = {name: tensor.numpy() for name, tensor in module_of(layers, 0).state_dict().items()}
        card = {"layers": to_json(layers), "shape": list(DATASET.shape), "classes": list(DATASET.classes)}
        checkpoint, best = Checkpoint(weights, card), measurement(1, value)
        path = f"{job.id}/{record.number}.safetensors"
        saved = {record.number: (path, save_checkpoint(folder / path, checkpoint))}
        size = sizes((recorded or {}).get(record.number, hidden))
        started = Started(record.number, params.model_dump(), {}, {}, 1, 2, 0, **size)
        finished = Finished(record.number, TrialState.COMPLETED, "all epochs", best, value, checkpoint)
        work.ledger.record(claim, [started, Measured(record.number, best, {}), finished], saved)
        work.leases.close(claim)
    return job.id


def published(work: Work) -> list[ModelVersion]:
    """Publish the waiting job; return all versions, by number."""
    claim = work.leases.claim()
    assert claim is not None
    publish(claim, Training(work).bench)
    with work.database.reading() as session:
        return list(session.scalars(select(ModelVersion).order_by(col(ModelVersion.version))))


def test_only_the_winner_is_evaluated_on_the_test_images(work: Work, environment: Path) -> None:
    """Each version has its own latency and calibration; one opening is counted, and the winner is champion."""
    run(work, environment, TRIALS)
    versions = published(work)
    with work.database.reading() as session:
        opening = session.scalars(select(Opening)).one()
        champion = session.scalars(select(Champion)).one()

    assert [version.trial for version in versions] == [1, 0, 3]
    assert [version.weights for version in versions] == sorted((version.weights for version in versions), reverse=True)
    assert [version.test_accuracy is None for version in versions] == [False, True, True]
    assert all(version.test_loss is None for version in versions[1:])
    assert all((version.calibration or {})["test_images"] == 0 for version in versions[1:])
    assert len({version.latency_seconds for version in versions} - {None}) == 3
    assert opening.version_id == champion.version_id == versions[0].id


def test_a_smaller_trial_never_replaces_a_better_champion(work: Work, environment: Path) -> None:
    """The previous champion stays, even if the front of a worse job is better in one respect."""
    run(work, environment, [(0.97, 32)])
    first = published(work)
    run(work, environment, TRIALS)
    versions = published(work)
    with work.database.reading() as session:
        champion = session.scalars(select(Champion)).one()

    assert (len(first), len(versions)) == (1, 4)
    assert champion.version_id == first[0].id


def test_a_restarted_job_publishes_no_trial_twice(work: Work, environment: Path) -> None:
    """Only trials that are not yet versions are published with the new winner."""
    job_id = run(work, environment, TRIALS[:1])
    published(work)
    work.controls.extend(job_id, {"trials": 2})
    claim = work.leases.claim()
    assert claim is not None
    (record,) = work.reserved(claim)
    with work.database.reading() as session:
        before = session.scalars(select(Artifact).where(col(Artifact.kind) == "checkpoint")).one()
    best = measurement(1, 0.99)
    path = f"{job_id}/{record.number}.safetensors"
    content = (environment / before.path).read_bytes()
    (environment / path).write_bytes(content)
    started = Started(record.number, {}, {}, {}, 1, 2, 0, flops=10**9, weights=10**9)
    finished = Finished(record.number, TrialState.COMPLETED, "all epochs", best, 0.99, None)
    saved = {record.number: (path, Saved(before.sha256, before.size))}
    work.ledger.record(claim, [started, Measured(record.number, best, {}), finished], saved)
    work.leases.close(claim)
    versions = published(work)
    with work.database.reading() as session:
        state = session.get_one(Job, job_id).state

    assert [(version.run, version.trial) for version in versions] == [(1, 0), (2, 1)]
    assert state == JobState.COMPLETED


def test_a_damaged_checkpoint_of_the_front_costs_only_that_version(work: Work, environment: Path) -> None:
    """The job completes with its winner and the other trials."""
    job_id = run(work, environment, TRIALS)
    (environment / f"{job_id}/0.safetensors").write_bytes(b"damaged")

    assert [version.trial for version in published(work)] == [1, 3]


def test_an_architecture_is_measured_once(work: Work, environment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two trials with the same layers share a latency. One is recorded as smaller, so that both are on the front.

    A version of a later job shares it too, but not one that another machine published.
    """
    measured = []
    latency = Candidate.latency

    def counted(candidate: Candidate, images: Tensor) -> float:
        measured.append(candidate.weights)
        return latency(candidate, images)

    monkeypatch.setattr(Candidate, "latency", counted)
    run(work, environment, [(0.9, 64), (0.8, 64), (0.7, 16)], recorded={1: 32})
    versions = published(work)

    assert [version.trial for version in versions] == [0, 1, 2]
    assert versions[0].latency_seconds == versions[1].latency_seconds != versions[2].latency_seconds
    assert len(measured) == 2

    run(work, environment, [(0.9, 16)])
    *_, again = published(work)

    assert again.latency_seconds == versions[2].latency_seconds
    assert len(measured) == 2

    with work.database.writing() as session:
        for version in session.scalars(select(ModelVersion)):
            version.environment = {"processor": "another"}
    run(work, environment, [(0.9, 16)])
    published(work)

    assert len(measured) == 3
