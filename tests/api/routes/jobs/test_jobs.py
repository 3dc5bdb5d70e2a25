"""Listing, showing and cancelling jobs."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient
from support.worker_tools import Work

from ml.records import TrialState
from tests.api.tools import pages, pointers, post, problem, publish
from worker.database.tables import Job, JobState


def ids(items: list[dict[str, Any]]) -> list[str]:
    """Return the ids of jobs."""
    return [job["id"] for job in items]


def stamp(work: Work, instants: dict[str, float]) -> None:
    """Set the times at which jobs were submitted."""
    with work.database.writing() as session:
        for job_id, instant in instants.items():
            session.execute(update(Job).where(Job.id == job_id).values(created_at=instant))  # type: ignore[arg-type]


def cancelled(api: TestClient, job_id: str) -> dict[str, Any]:
    """Cancel a job, and return the answer."""
    response = api.post(f"/jobs/{job_id}/cancel")
    assert response.status_code == 202, response.text
    answer: dict[str, Any] = response.json()
    return answer


# --- lists


def test_without_jobs_the_list_is_empty(api: TestClient) -> None:
    """An empty database gives one empty page."""
    assert api.get("/jobs").json() == {"items": [], "next_cursor": None}


def test_the_newest_job_comes_first(api: TestClient, work: Work) -> None:
    """Jobs are in the reverse order of submission."""
    posted = [post(api)["id"] for _ in range(4)]
    stamp(work, {job_id: 1000.0 + n for n, job_id in enumerate(posted)})

    assert ids(api.get("/jobs").json()["items"]) == posted[::-1]


@pytest.mark.parametrize("limit", [1, 3, 7, 8])
def test_pages_list_every_job_once(api: TestClient, work: Work, limit: int) -> None:
    """No job is missing or repeated, even among jobs submitted at the same instant."""
    posted = [post(api)["id"] for _ in range(7)]
    stamp(work, {job_id: 1000.0 + n // 3 for n, job_id in enumerate(posted)})
    found = list(pages(api, "/jobs", limit=limit))
    seen = [job for page in found for job in page]

    assert sorted(ids(seen)) == sorted(posted)
    assert [job["created_at"] for job in seen] == sorted((job["created_at"] for job in seen), reverse=True)
    assert all(len(page) == limit for page in found[:-1])


def test_new_jobs_neither_shift_nor_repeat_a_page(api: TestClient) -> None:
    """A client that pages while others submit jobs sees every earlier job once."""
    posted = [post(api)["id"] for _ in range(6)]
    seen = []
    for page in pages(api, "/jobs", limit=2):
        seen += ids(page)
        post(api)

    assert seen == posted[::-1]


def test_the_list_can_be_limited_to_a_state(api: TestClient, work: Work) -> None:
    """The filter holds on every page."""
    posted = [post(api)["id"] for _ in range(5)]
    ended = [posted[n] for n in (0, 2, 4)]
    for job_id in ended:
        cancelled(api, job_id)
    found = [job for page in pages(api, "/jobs", state="cancelled", limit=2) for job in page]

    assert ids(found) == ended[::-1]
    assert ids(api.get("/jobs", params={"state": "queued"}).json()["items"]) == [posted[3], posted[1]]
    assert api.get("/jobs", params={"state": "completed"}).json()["items"] == []


@pytest.mark.parametrize("state", JobState)
def test_every_state_is_a_valid_filter(shared_api: TestClient, state: JobState) -> None:
    """The answer is 200, even if no job has the state."""
    assert shared_api.get("/jobs", params={"state": state}).status_code == 200


def test_a_cursor_works_after_its_job_has_left_the_list(api: TestClient, work: Work) -> None:
    """A cursor of a filtered list works even if its last job no longer matches the filter."""
    posted = [post(api)["id"] for _ in range(3)]
    first = api.get("/jobs", params={"state": "queued", "limit": 1}).json()
    cancelled(api, first["items"][0]["id"])
    rest = api.get("/jobs", params={"state": "queued", "cursor": first["next_cursor"]}).json()

    assert ids(rest["items"]) == [posted[1], posted[0]]


# --- one job


def test_a_job_shows_its_progress(api: TestClient, work: Work) -> None:
    """A job shows its trials by state, the best one, and its start."""
    job_id = post(api, budget={"trials": 5})["id"]
    for value, state in ((0.7, TrialState.COMPLETED), (0.9, TrialState.PRUNED), (None, TrialState.DIVERGED)):
        claim = work.leases.claim()
        assert claim is not None
        work.run_trial(claim, value, state)
    work.leases.claim()
    job = api.get(f"/jobs/{job_id}").json()

    assert job["trials"] == {"completed": 1, "diverged": 1, "pruned": 1, "running": 1}
    assert job["best"] == {"trial": 1, "value": 0.9}
    assert (job["state"], job["stop_reason"], job["finished_at"], job["version"]) == ("running", None, None, None)
    assert [step["state"] for step in job["history"]] == ["queued", "running"]


def test_a_list_and_a_detail_agree(api: TestClient, work: Work) -> None:
    """The list shows a job as its detail does, without specification, result and history."""
    job = post(api)
    (listed,) = api.get("/jobs").json()["items"]

    assert job.keys() - listed.keys() == {"spec", "result", "history"}
    assert listed == {name: job[name] for name in listed}


def test_times_have_a_time_zone(api: TestClient) -> None:
    """A time is unambiguous without the server's time zone."""
    job = post(api)
    posted_at = datetime.fromisoformat(job["created_at"])

    assert posted_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - posted_at) < timedelta(minutes=5)


def test_a_completed_job_names_its_version(api: TestClient, work: Work, environment: Path) -> None:
    """After publication the job names the version of its winner."""
    version = publish(work, environment, "shallow", 0.9)
    job = api.get(f"/jobs/{version.job.id}").json()

    assert (job["state"], job["stop_reason"]) == ("completed", "trials")
    assert job["version"] == {"model": "shallow", "version": 1}
    assert job["started_at"] <= job["finished_at"]
    assert [step["state"] for step in job["history"]] == ["queued", "running", "stopping", "completed"]


def test_a_failed_job_says_why(api: TestClient, work: Work) -> None:
    """A job without a publishable trial fails; its error has counts and the last reason."""
    job_id = post(api, budget={"trials": 1})["id"]
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, None, TrialState.DIVERGED)
    job = api.get(f"/jobs/{job_id}").json()

    assert job["state"] == "failed"
    assert "1 diverged" in job["error"]
    assert "for the test" in job["error"]


def test_a_job_shows_how_many_trials_train_together(api: TestClient, work: Work) -> None:
    """The number is null before the first pack runs, then the decided one; the specification keeps the request."""
    job_id = post(api, lanes=6)["id"]
    before = api.get(f"/jobs/{job_id}").json()
    work.ledger.fix_lanes(work.pack(1), "batch 32, Flatten-Linear", 2)
    after = api.get(f"/jobs/{job_id}").json()

    assert (before["lanes"], after["lanes"]) == (None, 2)
    assert before["spec"]["lanes"] == after["spec"]["lanes"] == 6


@pytest.mark.parametrize("lanes", [0, -1, 1025, 1.5, "4"])
def test_an_invalid_number_of_lanes_is_refused(shared_api: TestClient, lanes: Any) -> None:
    """The error names the field."""
    spec = {"model": "perceptron", "dataset": "digits", "lanes": lanes}

    assert pointers(shared_api.post("/jobs/tune", json=spec)).keys() == {"#/lanes"}


# --- cancelling


def test_a_queued_job_is_cancelled_at_once(api: TestClient) -> None:
    """Nothing runs, so the answer shows the final state."""
    job = cancelled(api, post(api)["id"])

    assert (job["state"], job["stop_reason"]) == ("cancelled", "cancelled")
    assert job["finished_at"] is not None
    assert api.get(f"/jobs/{job['id']}").json() == job


def test_a_cancelled_job_has_ended_with_all_its_trials(api: TestClient, work: Work) -> None:
    """The answer shows the end at once, and a trainer that still runs can write no more."""
    job_id = post(api)["id"]
    claim = work.pack(2)
    asked = cancelled(api, job_id)

    assert (asked["state"], asked["trials"]) == ("cancelled", {"cancelled": 2})
    assert asked["history"][-1]["by"] == "request"
    assert work.leases.claim() is None
    assert not work.leases.renew(claim)


def test_cancelling_twice_changes_nothing(api: TestClient) -> None:
    """The second request returns the same job and adds nothing to its history."""
    job_id = post(api)["id"]

    assert cancelled(api, job_id) == cancelled(api, job_id)


def test_cancelling_a_completed_job_changes_nothing(api: TestClient, work: Work, environment: Path) -> None:
    """The answer shows the completed job as it was."""
    version = publish(work, environment)
    before = api.get(f"/jobs/{version.job.id}").json()

    assert cancelled(api, version.job.id) == before


def test_an_unknown_job_cannot_be_cancelled(api: TestClient) -> None:
    """The answer is 404 and says where to look."""
    assert "GET /jobs" in problem(api.post("/jobs/000000000000/cancel"), 404)["detail"]
