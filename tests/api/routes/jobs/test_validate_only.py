"""`?validate_only=true`: the complete specification, its problems, and an estimate of the duration."""

from typing import Any

import pytest
from starlette.testclient import TestClient
from support.worker_tools import Work

from ml.records import TrialState
from tests.api.tools import JSON, body, insert, pointers

TUNE = {"model": "shallow", "dataset": "digits", "budget": {"trials": 8, "epochs": 10}}
BATCH = {"search_space": {"batch_size": {"type": "int", "low": 50, "high": 100}}}


def ended(number: int, batch_size: int = 64, epochs: float = 5, seconds: float = 20, **fields: Any) -> dict[str, Any]:
    """Return a row of a trial that has ended."""
    row = {"number": number, "state": TrialState.PRUNED, "params": {"batch_size": batch_size}, "created_at": 1e9}
    return {**row, "epochs_run": epochs, "seconds": seconds, **fields}


def worked(work: Work, active_seconds: float, rows: list[dict[str, Any]], **fields: Any) -> None:
    """Insert a job with these trials and this active time."""
    job = work.accept(**{**TUNE, **fields})
    insert(work, job.id, rows)
    with work.database.writing() as session:
        session.merge(job).active_seconds = active_seconds


def estimate(api: TestClient, kind: str = "tune", **fields: Any) -> tuple[float | None, int]:
    """Return the estimated seconds of a job, and the number of trials that the estimate is based on."""
    answer = api.post(f"/jobs/{kind}?validate_only=true", json={**TUNE, **fields})
    assert answer.status_code == 200, answer.text
    return answer.json()["seconds"], answer.json()["measured_trials"]


@pytest.mark.parametrize("kind", ["tune", "train"])
def test_validation_returns_the_spec_of_the_job_and_stores_nothing(api: TestClient, kind: str) -> None:
    """The specification equals that of the job that is submitted next."""
    spec = {"model": "mlp", "dataset": "digits"}
    validated = api.post(f"/jobs/{kind}?validate_only=true", json=spec)
    none = api.get("/jobs").json()["items"]
    posted = api.post(f"/jobs/{kind}", json=spec).json()

    assert validated.status_code == 200
    assert none == []
    assert validated.json()["spec"] == posted["spec"]
    assert validated.json()["trial_limit"] == posted["trial_limit"]


def test_validation_does_not_use_up_a_key(api: TestClient) -> None:
    """A validated job can be submitted with the same Idempotency-Key."""
    headers = {"Idempotency-Key": "mine"}
    api.post("/jobs/tune?validate_only=true", json=TUNE, headers=headers)
    posted = api.post("/jobs/tune", json=TUNE, headers=headers)

    assert posted.status_code == 202


@pytest.mark.parametrize(
    "change",
    [
        {"budget": {"trials": 0}},
        {"model": "nobody"},
        {"search_space": {"lr": 1}},
        {"init_from": {"model": "mlp", "version": 9}},
    ],
)
def test_validation_gives_the_errors_of_the_post(shared_api: TestClient, change: dict[str, Any]) -> None:
    """Pointers and messages are equal."""
    sent = body({**TUNE, **change})
    validated = shared_api.post("/jobs/tune?validate_only=true", content=sent, headers=JSON)

    assert pointers(validated, 422) == pointers(shared_api.post("/jobs/tune", content=sent, headers=JSON))


def test_without_an_earlier_trial_there_is_no_estimate(api: TestClient) -> None:
    """The seconds are null, and zero trials were measured."""
    assert estimate(api) == (None, 0)


def test_the_estimate_follows_from_measured_trials(api: TestClient, work: Work) -> None:
    """The formula is trials × epochs × share of epochs that run × seconds per epoch / trials trained at once."""
    worked(work, 20, [ended(0), ended(1, epochs=10, seconds=20)])
    # 15 of 20 epochs ran in 40 s of trial time and 20 s of job time, so two at once: 8 × 10 × 15/20 × 40/15 / 2.
    seconds, trials = estimate(api)

    assert trials == 2
    assert seconds == pytest.approx(80)
    assert estimate(api, budget={"trials": 8, "epochs": 10, "seconds": 30}) == (30, 2)
    assert estimate(api, budget={"trials": 1, "epochs": 10}) == (20, 2)


@pytest.mark.parametrize(
    ("rows", "fields"),
    [
        ([ended(0, batch_size=3)], {}),
        ([ended(0)], {"model": "mlp"}),
        ([ended(0, state=TrialState.RUNNING)], {}),
        ([ended(0, epochs=0, params=None)], {}),
    ],
    ids=["batches much smaller", "another network", "still running", "nothing measured"],
)
def test_dissimilar_trials_do_not_count(
    api: TestClient, work: Work, rows: list[dict[str, Any]], fields: dict[str, Any]
) -> None:
    """Trials with other batch sizes, of other networks, or without measurements do not count."""
    worked(work, 20, rows, **fields)

    assert estimate(api, **BATCH) == (None, 0)
    assert estimate(api, "train", budget={"epochs": 10}) == (None, 0)


def test_jobs_with_another_number_of_images_do_not_count(api: TestClient, work: Work) -> None:
    """A tenth of the images takes a tenth of the time."""
    worked(work, 40, [ended(0), ended(1)], images=120)

    assert estimate(api) == (None, 0)
    assert estimate(api, images=120)[1] == 2
