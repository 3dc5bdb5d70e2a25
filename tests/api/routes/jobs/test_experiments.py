"""Collections of experiments over HTTP: submitted completely or not at all, once, and shown together."""

import json
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient
from support.worker_tools import Work
from typer.testing import CliRunner

from api.cli.app import app
from ml.presets import collection
from ml.presets.scaling import scaled
from tests.api.tools import pointers, problem
from worker.database.tables import GroupMember, Job, JobGroup

NAMES = [experiment.name for experiment in collection("mnist-report").experiments]
SMALL = {"collection": "mnist-report", "scale": 0.01, "seed": 3}


def posted(client: TestClient, key: str | None = None, **fields: Any) -> dict[str, Any]:
    """Submit a collection, and return the group."""
    headers = {} if key is None else {"Idempotency-Key": key}
    response = client.post("/jobs/experiments", json={**SMALL, **fields}, headers=headers)
    assert response.status_code == 202, response.text
    assert response.headers["location"] == f"/jobs/experiments/{response.json()['id']}"
    group: dict[str, Any] = response.json()
    return group


def rows(work: Work) -> list[int]:
    """Return the numbers of jobs, groups and members."""
    with work.database.reading() as session:
        return [session.scalar(select(func.count()).select_from(table)) or 0 for table in (Job, JobGroup, GroupMember)]


def test_every_experiment_becomes_a_separate_job(api: TestClient) -> None:
    """Jobs are in the collection's order, each with its own specification at the requested scale and seed."""
    group = posted(api)
    jobs = [api.get(f"/jobs/{member['job']['id']}").json() for member in group["experiments"]]
    expected = [
        scaled(e.spec, 0.01).model_dump(mode="json") | {"seed": 3} for e in collection("mnist-report").experiments
    ]

    assert [member["name"] for member in group["experiments"]] == NAMES
    assert [job["spec"] for job in jobs] == expected
    assert (group["state"], group["scale"]) == ("queued", 0.01)
    assert api.get(f"/jobs/experiments/{group['id']}").json() == group


def test_the_first_experiment_starts_first(api: TestClient, work: Work) -> None:
    """Workers claim the jobs of a group in the collection's order."""
    group = posted(api)
    claims = [work.leases.claim() for _ in NAMES]

    assert [claim and claim.job_id for claim in claims] == [member["job"]["id"] for member in group["experiments"]]
    assert api.get(f"/jobs/experiments/{group['id']}").json()["state"] == "running"


def test_a_key_posts_a_collection_only_once(api: TestClient, work: Work) -> None:
    """A repeated request returns the same group; another body with the same key is refused."""
    group = posted(api, key="once")

    assert posted(api, key="once")["id"] == group["id"]
    assert rows(work) == [len(NAMES), 1, len(NAMES)]
    again = api.post("/jobs/experiments", json={**SMALL, "seed": 4}, headers={"Idempotency-Key": "once"})
    assert pointers(again).keys() == {"Idempotency-Key"}


def test_part_of_a_collection_can_be_posted(api: TestClient) -> None:
    """The jobs have the collection's order, for any order of the requested names."""
    group = posted(api, only=["cnn-search", "perceptron"])

    assert [member["name"] for member in group["experiments"]] == ["perceptron", "cnn-search"]


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"collection": "nothing"}, "#/collection"),
        ({"only": ["perceptron", "nothing"]}, "#/only/1"),
        ({"only": []}, "#/only"),
        ({"scale": 0}, "#/scale"),
        ({"scale": 1.5}, "#/scale"),
        ({"seed": -1}, "#/seed"),
        ({"more": 1}, "#/more"),
    ],
)
def test_a_refused_collection_creates_nothing(
    api: TestClient, work: Work, fields: dict[str, Any], pointer: str
) -> None:
    """The answer names the field, and no job is written."""
    assert pointer in pointers(api.post("/jobs/experiments", json={**SMALL, **fields}))
    assert rows(work) == [0, 0, 0]


@pytest.mark.parametrize("group_id", ["0123456789ab", "nothing", "%00"])
def test_an_unknown_group_is_not_found(api: TestClient, group_id: str) -> None:
    """The answer is 404 for any id."""
    problem(api.get(f"/jobs/experiments/{group_id}"), 404)


def test_collections_and_groups_are_listed(api: TestClient) -> None:
    """The list has the collection's experiments with their trials at full scale, and the groups, newest first."""
    first, second = posted(api), posted(api, seed=4)
    overview = api.get("/jobs/experiments").json()
    (report,) = overview["collections"]

    assert [e["trials"] for e in report["experiments"]] == [1, 144, 48, 18, 144, 144, 1000, 133, 956]
    assert [group["id"] for group in overview["groups"]] == [second["id"], first["id"]]


def test_a_group_ends_when_all_its_jobs_have_ended(api: TestClient) -> None:
    """The group is cancelled if all its jobs are cancelled."""
    group = posted(api, only=["perceptron", "cnn-search"])
    path = f"/jobs/experiments/{group['id']}"
    one, other = (member["job"]["id"] for member in group["experiments"])
    api.post(f"/jobs/{one}/cancel")
    between = api.get(path).json()["state"]
    api.post(f"/jobs/{other}/cancel")

    assert (between, api.get(path).json()["state"]) == ("running", "cancelled")


def test_the_command_posts_a_collection_and_a_preset(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listed collections and presets can be submitted; a group shows each experiment's name."""
    monkeypatch.setenv("CHIFFRE_URL", url)
    group = json.loads(command("experiments", "mnist-report", "--scale", "0.01", "--json"))
    job = json.loads(command("tune", "--preset", "mnist-report/cnn-search", "--json"))

    assert all(name in command("experiments") for name in NAMES)
    assert all(name in command("group", group["id"]) for name in NAMES)
    assert "mnist-report/cnn-search" in command("presets").split()
    assert job["spec"]["search_space"]["batch_size"]["high"] == 100
    assert json.loads(command("presets", "mnist-report/cnn-search"))["budget"]["trials"] == 956


def command(*arguments: str) -> str:
    """Run a `chiffre` command and return its output."""
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    return done.stdout
