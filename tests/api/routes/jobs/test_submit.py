"""Submitting a job: an accepted job is stored completely, and a worker finds it."""

from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient
from support.worker_tools import Work

from ml.specs import TrainSpec, TuneSpec
from tests.api.tools import TUNE, post, problem, send
from worker.database.tables import Event, Job, JobState

DESIGN = {
    "model": "cnn",
    "dataset": "mnist",
    "search_space": {
        "batch_size": {"type": "int", "low": 3, "high": 100},
        "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
    },
    "sampler": {"name": "tpe"},
    "pruner": {"name": "hyperband"},
    "early_stopping": {"patience": 2, "min_delta": 0.001},
    "budget": {"trials": 956, "seconds": 10800, "epochs": 20},
    "objective": "val_accuracy",
    "seed": 0,
}
WIDTHS = {
    "type": "list",
    "length": {"type": "int", "low": 2, "high": 10},
    "items": {"type": "int", "low": 200, "high": 1000},
}
GRID = {"model": "perceptron", "sampler": {"name": "grid"}}
ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("tune", DESIGN),
    ("tune", {"model": "perceptron"}),
    ("tune", {"model": "mlp", "search_space": {"hidden_sizes": WIDTHS}}),
    ("tune", {"model": "mlp", "search_space": {"hidden_sizes": [977, 878], "optimizer": "sgd"}}),
    ("tune", {**GRID, "search_space": {"batch_size": {"type": "grid", "values": [3, 5, 10]}}, "budget": {"epochs": 1}}),
    ("tune", {"model": "shallow", "dataset": "digits", "budget": {"seconds": 0.5}, "loss": "mse"}),
    ("train", {"model": "cnn"}),
    ("train", {"model": "shallow", "params": {"hidden_size": 1685, "batch_size": 100, "learning_rate": 5e-4}}),
    ("train", {"model": "mlp", "split": "official", "early_stopping": {}, "budget": {"epochs": 3, "seconds": 60}}),
]


def stored(work: Work, job_id: str) -> Job:
    """Return the row of a job."""
    with work.database.reading() as session:
        return session.get_one(Job, job_id)


def covers(written: Any, kept: Any) -> bool:
    """Return whether the stored value has everything that was sent; it may have defaults too."""
    if isinstance(written, dict):
        return isinstance(kept, dict) and all(name in kept and covers(written[name], kept[name]) for name in written)
    return bool(written == kept)


@pytest.mark.parametrize(("kind", "spec"), ACCEPTED, ids=lambda value: str(value)[:40])
def test_a_job_is_accepted_with_a_location(shared_api: TestClient, kind: str, spec: dict[str, Any]) -> None:
    """The answer is 202 with a queued job that has everything that was sent, and with the job's location."""
    response = shared_api.post(f"/jobs/{kind}", json=spec)
    job = response.json()

    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/jobs/{job['id']}"
    assert (job["kind"], job["state"], job["model"], job["trials"]) == (kind, "queued", spec["model"], {})
    assert covers(spec, job["spec"])
    assert shared_api.get(response.headers["location"]).json() == job


@pytest.mark.parametrize("kind", ["tune", "train"])
def test_an_accepted_job_is_stored_as_queued(api: TestClient, work: Work, kind: str) -> None:
    """Before the answer arrives, the row and the first entry of its history are committed."""
    job_id = post(api, kind)["id"]
    row = stored(work, job_id)
    with work.database.reading() as session:
        history = session.scalars(select(Event)).all()

    assert (row.state, row.kind, row.reserved, row.started_at) == (JobState.QUEUED, kind, 0, None)
    assert [(event.job_id, event.state, event.trial) for event in history] == [(job_id, "queued", None)]


@pytest.mark.parametrize("kind", ["tune", "train"])
def test_defaults_are_filled_into_the_stored_spec(api: TestClient, work: Work, kind: str) -> None:
    """The row holds every field, so that a later change of a default does not change an accepted job."""
    job = post(api, kind, model="shallow")
    model = TuneSpec if kind == "tune" else TrainSpec
    kept = stored(work, job["id"]).spec
    expected = model.model_validate({"model": "shallow", "dataset": "digits"}).model_dump(mode="json")

    assert kept == expected == job["spec"]
    assert kept.keys() == set(model.model_fields)
    assert kept["budget"]["epochs"] == 10


def test_the_stored_spec_has_the_networks_default_space(api: TestClient, work: Work) -> None:
    """A job without a search space gets the network's default space, in its stored specification too."""
    kept = stored(work, post(api, model="shallow")["id"]).spec

    assert kept["search_space"]["hidden_size"] == {
        "type": "int",
        "low": 64,
        "high": 1024,
        "log": True,
        "step": 1,
    }
    assert kept["sampler"] == {"name": "tpe", "n_startup_trials": 10, "n_ei_candidates": 24}
    assert kept["pruner"] == {"name": "hyperband", "min_epochs": 1, "reduction_factor": 3}


def test_a_worker_claims_a_posted_job(api: TestClient, work: Work) -> None:
    """The next claim is of the posted job, which then runs."""
    job_id = post(api)["id"]
    claim = work.leases.claim()

    assert claim is not None
    assert claim.job_id == job_id
    assert api.get(f"/jobs/{job_id}").json()["state"] == "running"


def test_equal_posts_are_different_jobs(api: TestClient) -> None:
    """Equal requests are not merged: each gets a new id."""
    ids = {post(api)["id"] for _ in range(5)}

    assert len(ids) == 5


def test_the_trial_limit_follows_from_budget_and_grid(shared_api: TestClient) -> None:
    """The limit is the requested number, 1 for a training job, and at most the grid's size for a grid."""
    grid = {"batch_size": {"type": "grid", "values": [3, 5, 10]}, "optimizer": {"type": "grid", "values": ["adam"]}}
    tuned = post(shared_api, budget={"trials": 956})
    trained = post(shared_api, "train")
    exhausted = post(shared_api, sampler={"name": "grid"}, search_space=grid, budget={"trials": 50})

    assert [job["trial_limit"] for job in (tuned, trained, exhausted)] == [956, 1, 3]


def test_a_content_type_may_name_its_charset(shared_api: TestClient) -> None:
    """`application/json; charset=utf-8` is accepted as JSON."""
    response = shared_api.post(
        "/jobs/tune", content='{"model": "cnn"}', headers={"content-type": "application/json; charset=utf-8"}
    )

    assert response.status_code == 202


@pytest.mark.parametrize("kind", ["tune", "train"])
def test_a_refused_job_is_not_stored(api: TestClient, work: Work, kind: str) -> None:
    """After an error there is no row, and no worker finds a job."""
    problem(send(api, f"/jobs/{kind}", {**TUNE, "model": "resnet", "budget": {}}), 422)
    with work.database.reading() as session:
        jobs = session.scalar(select(func.count()).select_from(Job))

    assert jobs == 0
    assert work.leases.claim() is None
