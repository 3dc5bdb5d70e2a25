"""Controls of jobs over HTTP: their answers, requests that come too late, and repeated requests."""

from typing import Any

import pytest
from starlette.testclient import TestClient
from support.worker_tools import Work

from ml.records import TrialState
from tests.api.tools import pointers, post, problem

SPACE = {"learning_rate": {"type": "float", "low": 1e-4, "high": 0.1, "log": True}}


def test_a_job_is_paused_and_resumed(api: TestClient) -> None:
    """The answer is 202 with the current job, even to a repeated request."""
    path = f"/jobs/{post(api)['id']}"
    paused = [api.post(f"{path}/pause") for _ in range(2)]
    resumed = [api.post(f"{path}/resume") for _ in range(2)]

    assert [answer.status_code for answer in paused + resumed] == [202] * 4
    assert [answer.json()["state"] for answer in paused + resumed] == ["paused", "paused", "queued", "queued"]
    assert [(step["state"], step["by"]) for step in resumed[-1].json()["history"]] == [
        ("queued", "request"),
        ("paused", "request"),
        ("queued", "request"),
    ]


def test_a_control_that_the_state_forbids_gets_409(api: TestClient) -> None:
    """The error names the current state."""
    path = f"/jobs/{post(api)['id']}"
    api.post(f"{path}/cancel")
    for answer in (
        api.post(f"{path}/pause"),
        api.post(f"{path}/resume"),
        api.patch(path, json={"budget": {"trials": 5}}),
        api.post(f"{path}/trials", json={"params": {}}),
    ):
        assert "the job is cancelled" in problem(answer, 409)["detail"]


def test_a_patch_raises_the_budget(api: TestClient) -> None:
    """The answer shows the limits. A limit that is left out does not change, and null removes a limit."""
    path = f"/jobs/{post(api, budget={'trials': 2, 'epochs': 3})['id']}"
    raised = api.patch(path, json={"budget": {"trials": 5, "seconds": 60}}).json()
    timed = api.patch(path, json={"budget": {"trials": None}}).json()

    assert (raised["trial_limit"], raised["seconds_limit"]) == (5, 60)
    assert raised["spec"]["budget"] == {"trials": 5, "seconds": 60.0, "epochs": 3}
    assert (timed["seconds_limit"], timed["spec"]["budget"]["trials"]) == (60, None)


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"budget": {"trials": 0}}, "#/budget/trials"),
        ({"budget": {"trials": "many"}}, "#/budget/trials"),
        ({"budget": {"epochs": 3}}, "#/budget/epochs"),
        ({"state": "completed"}, "#/state"),
        ({"budget": {"trials": None, "seconds": None}}, "#/budget"),
    ],
)
def test_an_invalid_change_is_refused_with_a_pointer(api: TestClient, change: dict[str, Any], pointer: str) -> None:
    """The answer is 422, and nothing changes."""
    job = post(api)

    assert pointer in pointers(api.patch(f"/jobs/{job['id']}", json=change))
    assert api.get(f"/jobs/{job['id']}").json()["spec"] == job["spec"]


def test_a_configuration_is_enqueued(api: TestClient) -> None:
    """The answer is 202 with the trial's location."""
    path = f"/jobs/{post(api, search_space=SPACE)['id']}/trials"
    answer = api.post(path, json={"params": {"learning_rate": 0.01}})

    assert (answer.status_code, answer.headers["location"]) == (202, f"{path}/0")
    assert api.get(f"{path}/0").json()["number"] == answer.json()["number"] == 0


def test_a_configuration_outside_the_space_is_refused_with_a_pointer(api: TestClient) -> None:
    """The pointer names the parameter."""
    path = f"/jobs/{post(api, search_space=SPACE)['id']}/trials"

    assert pointers(api.post(path, json={"params": {"learning_rate": 7}})) == {
        "#/params/learning_rate": "out of range; give a value from 0.0001 to 0.1"
    }


def test_a_trial_is_cancelled_and_a_failed_trial_is_retried(api: TestClient, work: Work) -> None:
    """Each request returns the trial."""
    path = f"/jobs/{post(api, budget={'trials': 3})['id']}/trials"
    claim = work.pack(2)
    cancelled = api.post(f"{path}/1/cancel").json()
    work.run_trial(claim, None, TrialState.FAILED)
    tried = api.post(f"{path}/0/retry").json()
    refused = api.post(f"{path}/1/retry")

    assert (cancelled["state"], tried["state"]) == ("cancelled", "running")
    assert "only a failed trial can run again" in problem(refused, 409)["detail"]
    assert problem(api.post(f"{path}/9/retry"), 404)


@pytest.mark.parametrize("kind", ["tune", "train"])
def test_a_repeated_post_with_the_same_key_gets_the_same_answer(api: TestClient, kind: str) -> None:
    """Status, location and body are equal, and there is one job."""
    headers = {"Idempotency-Key": "7c0fd1"}
    body = {"model": "perceptron", "dataset": "digits"}
    first, second = (api.post(f"/jobs/{kind}", json=body, headers=headers) for _ in range(2))

    assert (first.status_code, second.status_code) == (202, 202)
    assert first.headers["location"] == second.headers["location"]
    assert first.json() == second.json()
    assert len(api.get("/jobs").json()["items"]) == 1


def test_a_key_of_another_request_is_refused(api: TestClient) -> None:
    """The other request has another body or path."""
    headers = {"Idempotency-Key": "7c0fd1"}
    body = {"model": "perceptron", "dataset": "digits"}
    api.post("/jobs/tune", json=body, headers=headers)
    for path, other in (("/jobs/tune", {**body, "seed": 1}), ("/jobs/train", body)):
        answer = pointers(api.post(path, json=other, headers=headers))

        assert "came with another request" in answer["Idempotency-Key"]
    assert len(api.get("/jobs").json()["items"]) == 1


@pytest.mark.parametrize("key", ["", "two words", "x" * 201])
def test_an_invalid_key_is_refused(api: TestClient, key: str) -> None:
    """The answer is 422, and there is no job."""
    answer = api.post("/jobs/tune", json={"model": "perceptron"}, headers={"Idempotency-Key": key})

    problem(answer, 422)
    assert api.get("/jobs").json()["items"] == []


def test_enqueuing_twice_with_the_same_key_gives_the_same_trial(api: TestClient) -> None:
    """There is one trial."""
    path = f"/jobs/{post(api, search_space=SPACE)['id']}/trials"
    answers = [api.post(path, json={"params": {}}, headers={"Idempotency-Key": "a"}).json() for _ in range(2)]

    assert answers[0] == answers[1]
    assert len(api.get(path).json()["items"]) == 1
