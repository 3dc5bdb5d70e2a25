"""`/analysis`, `/plots` and `/pareto` over HTTP: computed in a separate process, cached, and never a server error."""

import asyncio
import json
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from starlette.testclient import TestClient
from support.searched import reached, searched
from support.worker_tools import Work

from api.http.errors import NotAnalysed
from api.subprocesses import analyses
from api.subprocesses.analyses import Analyses
from ml.records import TrialState
from tests.api.tools import insert, pointers, problem, publish
from worker.database.tables import Job, JobState

TRIALS = 40


def a_search(work: Work, trials: int = TRIALS) -> str:
    """Insert a job with trials that were not really run, and return its id."""
    search = searched(trials)
    job = work.ledger.accept(search.spec)
    rows = []
    for trial in reached(search, trials):
        row = asdict(trial)
        row |= {"created_at": row.pop("began"), "finished_at": row.pop("ended"), "sequence": trial.number + 1}
        names = {"batch_size", "learning_rate", "optimizer", "hidden_size"}
        row |= {"suggestion": {name: trial.params[name] for name in names}, "value": trial.val_accuracy}
        rows.append(row | {"best_epoch": 2.0, "train_loss": trial.val_loss})
    insert(work, job.id, rows)
    with work.database.writing() as session:
        session.get_one(Job, job.id).state = JobState.COMPLETED
    return job.id


@pytest.fixture(scope="module")
def job(shared_work: Work) -> str:
    """Return the id of a job with trials."""
    return a_search(shared_work)


@pytest.fixture(scope="module")
def found(shared_api: TestClient, job: str) -> dict[str, Any]:
    """Return the analysis of the job."""
    answer = shared_api.get(f"/jobs/{job}/analysis")
    assert answer.status_code == 200, answer.text
    whole: dict[str, Any] = json.loads(answer.text, parse_constant=pytest.fail)
    return whole


def test_the_analysis_agrees_with_the_csv(shared_api: TestClient, job: str, found: dict[str, Any]) -> None:
    """Pandas computes the same correlations, counts and means from the CSV."""
    lines = shared_api.get(f"/jobs/{job}/trials", headers={"accept": "text/csv"}).text
    frame = pd.read_csv(pd.io.common.StringIO(lines))
    ended = frame[frame.state.isin(["completed", "stopped_early"])]
    names = ["batch_size", "learning_rate", "hidden_size", "val_loss", "val_accuracy", "seconds"]
    expected = ended[names].corr("spearman")
    ours = found["correlations"]
    place = [ours["variables"].index(name) for name in names]

    assert found["trials"] == frame.state.value_counts().to_dict()
    assert found["used"] == len(ended)
    for i, one in enumerate(names):
        for j, other in enumerate(names[:i]):
            assert ours["spearman"][place[i]][place[j]] == pytest.approx(expected.loc[one, other], abs=1e-12)
    optimizer = next(effect for effect in found["effects"] if effect["parameter"] == "optimizer")
    for group in optimizer["groups"]:
        own = ended[ended.optimizer == group["label"]]
        assert (group["trials"], group["seconds"]) == (len(own), pytest.approx(own.seconds.mean()))


def test_interactions_and_importances_are_reported(found: dict[str, Any]) -> None:
    """The planted interaction comes first, and its parameters are the most important."""
    first = next(one for one in found["interactions"] if one["outcome"] == "val_accuracy")

    assert {first["one"], first["other"]} == {"learning_rate", "optimizer"}
    assert first["p_holm"] < 0.01
    assert [one["method"] for one in found["importances"]] == ["ped_anova", "fanova"]
    assert all(sum(one["values"].values()) == pytest.approx(1) for one in found["importances"])


@pytest.mark.long
@pytest.mark.parametrize("name", ["parallel_coordinate", "timeline"])
def test_a_page_of_a_plot_runs_only_our_scripts(shared_api: TestClient, job: str, name: str) -> None:
    """The policy allows plotly's script from this service and our own script by its hash; the figure is data."""
    page = shared_api.get(f"/jobs/{job}/plots/{name}")
    figure = shared_api.get(f"/jobs/{job}/plots/{name}", params={"format": "json"})
    inside = re.search(r'<script type="application/json" id="figure">(.*?)</script>', page.text, re.DOTALL)
    policy = page.headers["content-security-policy"]

    assert page.headers["content-type"].startswith("text/html")
    assert inside is not None
    assert json.loads(inside[1]) == figure.json()
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.split("script-src")[1].split(";")[0]


def test_plotlys_script_comes_from_its_package(shared_api: TestClient) -> None:
    """The script has the installed version, and no other host is contacted."""
    answer = shared_api.get("/plotly.min.js")

    assert answer.headers["content-type"].startswith("text/javascript")
    assert "plotly.js v" in answer.text[:200]


@pytest.mark.long
def test_a_filter_reaches_the_plot(shared_api: TestClient, job: str) -> None:
    """A higher `min_accuracy` leaves fewer lines in the parallel coordinates, and none above all trials."""
    sizes = [
        len(shared_api.get(f"/jobs/{job}/plots/parallel_coordinate?format=json&min_accuracy={at}").json()["data"])
        for at in (0, 0.9, 1)
    ]

    assert sizes[0] > sizes[1] > sizes[2] == 0


@pytest.mark.parametrize(
    ("path", "pointer"),
    [
        ("plots/nonsense", "/name"),
        ("plots/slice?target=beauty", "?target"),
        ("plots/slice?min_accuracy=2", "?min_accuracy"),
        ("plots/slice?min_accuracy=nan", "?min_accuracy"),
        ("plots/timeline?min_accuracy=0.9", "?min_accuracy"),
        ("plots/slice?cost=flops", "?cost"),
        ("plots/slice?format=png", "?format"),
    ],
)
def test_an_invalid_plot_parameter_is_named(shared_api: TestClient, job: str, path: str, pointer: str) -> None:
    """The answer names the wrong parameter, and no process is started."""
    assert pointer in pointers(shared_api.get(f"/jobs/{job}/{path}"))


@pytest.mark.parametrize("path", ["analysis", "plots/slice", "pareto"])
def test_an_unknown_job_has_no_analysis(shared_api: TestClient, path: str) -> None:
    """The answer is 404."""
    problem(shared_api.get(f"/jobs/abc123/{path}"), 404)


@pytest.mark.parametrize("path", ["analysis", "plots/slice", "pareto"])
def test_a_predict_job_has_no_trials(
    shared_api: TestClient, shared_work: Work, shared_artifacts: Path, path: str
) -> None:
    """The answer is 409 and says which jobs have trials."""
    if not shared_api.get("/models").json()["items"]:
        publish(shared_work, shared_artifacts)
    posted = shared_api.post("/jobs/predict", json={"model": "perceptron"}).json()["id"]

    problem(shared_api.get(f"/jobs/{posted}/{path}"), 409)


@pytest.mark.long
def test_a_job_that_has_not_begun_has_an_empty_analysis(shared_api: TestClient, shared_work: Work) -> None:
    """Counts are zero, coefficients null with reasons, fronts empty, and plots say that there is no data yet."""
    posted = shared_work.ledger.accept(searched(3).spec).id
    whole = shared_api.get(f"/jobs/{posted}/analysis")
    page = shared_api.get(f"/jobs/{posted}/plots/contour")
    shared_work.controls.cancel(posted)  # otherwise other tests would claim it before their own jobs

    assert (whole.status_code, page.status_code) == (200, 200)
    assert (whole.json()["used"], whole.json()["trials"]) == (0, {})
    assert "no trial has run to its end" in page.text
    assert shared_api.get(f"/jobs/{posted}/pareto").json() == {
        "trials": 0,
        "points": [],
        "fronts": {"seconds": [], "flops": [], "weights": [], "latency_seconds": []},
    }


@pytest.mark.long
def test_trials_without_results_are_counted_and_left_out(shared_api: TestClient, shared_work: Work) -> None:
    """Trials that diverged, failed, were cancelled, still run or have no parameters are counted and left out."""
    posted = a_search(shared_work, 8)
    states = ("diverged", "failed", "cancelled", "running")
    params = {"batch_size": 32, "learning_rate": 0.01, "optimizer": "adam", "hidden_size": 64}
    rows: list[dict[str, Any]] = [
        {"number": 8 + place, "state": state, "params": params, "suggestion": params, "created_at": 1e9}
        for place, state in enumerate(states)
    ]
    rows.append({"number": 12, "state": "running", "created_at": 1e9})
    ended = {TrialState.DIVERGED, TrialState.FAILED, TrialState.CANCELLED}
    for place, row in enumerate(rows):
        row |= {"sequence": 100 + place, "finished_at": 1e9 + 5 if row["state"] in ended else None}
    insert(shared_work, posted, rows)
    whole = shared_api.get(f"/jobs/{posted}/analysis")
    drawn = shared_api.get(f"/jobs/{posted}/plots/timeline?format=json")

    assert whole.status_code == 200, whole.text
    assert whole.json()["trials"] == {"completed": 4, "stopped_early": 2, "pruned": 2, **dict.fromkeys(states, 1)}
    assert whole.json()["used"] == 6
    assert drawn.json()["data"]


def test_pareto_gives_the_front_of_each_cost(shared_api: TestClient, job: str) -> None:
    """A front has the trials of the CSV that no other trial dominates in accuracy and cost; latency is unknown here."""
    lines = shared_api.get(f"/jobs/{job}/trials", headers={"accept": "text/csv"}).text
    rows = pd.read_csv(pd.io.common.StringIO(lines))
    found = shared_api.get(f"/jobs/{job}/pareto").json()

    assert found["trials"] == len(rows)
    for cost in ("seconds", "flops", "weights"):
        expected = [
            int(row.number)
            for row in rows.itertuples()
            if not (
                ((rows.val_accuracy >= row.val_accuracy) & (rows[cost] <= getattr(row, cost)))
                & ((rows.val_accuracy > row.val_accuracy) | (rows[cost] < getattr(row, cost)))
            ).any()
        ]
        assert sorted(found["fronts"][cost]) == expected
    assert found["fronts"]["latency_seconds"] == []
    assert {point["trial"] for point in found["points"]} == {n for front in found["fronts"].values() for n in front}


# --- the processes that analyse


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return a list of the orders that processes are started for. Each process answers with its order."""
    orders: list[bytes] = []

    async def answer(order: bytes) -> bytes:
        orders.append(order)
        await asyncio.sleep(0)
        return order

    monkeypatch.setattr(analyses, "_run_analyst", answer)
    return orders


def a_job(name: str = "abc", sequence: int = 1) -> Job:
    """Return a job row that is not in the database."""
    return Job(id=name, sequence=sequence)


async def _closing(cache: Analyses, *requests: Any) -> list[Any]:
    found = await asyncio.gather(*requests, return_exceptions=True)
    await cache.close()
    return list(found)


def test_simultaneous_requests_share_one_process(counted: list[bytes]) -> None:
    """Later requests get the cached result until the job's counter changes."""

    async def ask() -> None:
        cache = Analyses()
        answers = await asyncio.gather(*(cache.get(a_job()) for _ in range(10)))
        again = await cache.get(a_job())
        newer = await _closing(cache, cache.get(a_job(sequence=2)))

        assert [*answers, again, *newer] == [answers[0]] * 12

    asyncio.run(ask())

    assert len(counted) == 2


def test_the_cache_is_bounded(counted: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Results of an older counter are removed at once, and the oldest results if the cache is full."""
    monkeypatch.setattr(analyses, "CACHE_BYTES", 200)

    async def ask() -> list[int]:
        cache = Analyses()
        for sequence in range(5):
            await cache.get(a_job(sequence=sequence))
        folder = cache._path("")
        sizes = [len(list(folder.iterdir()))]
        for name in "abcdefgh":
            await cache.get(a_job(name))
        sizes.append(sum(file.stat().st_size for file in folder.iterdir()))
        await cache.close()
        return [*sizes, folder.exists()]

    files, size, remains = asyncio.run(ask())

    assert files == 1
    assert 0 < size <= 200
    assert not remains


def test_an_analysis_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every waiting request gets NotAnalysed, which becomes a 503; a later request may try again."""
    monkeypatch.setattr(analyses, "SECONDS", 0.05)

    async def ask() -> list[Any]:
        cache = Analyses()
        return await _closing(cache, cache.get(a_job()), cache.get(a_job()))

    found = asyncio.run(ask())

    assert [type(one) for one in found] == [NotAnalysed] * 2


def test_a_process_that_fails_gives_503(shared_api: TestClient, job: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer has Retry-After, and nothing is cached."""
    monkeypatch.setattr(analyses.sys, "executable", "/bin/false")
    answer = shared_api.get(f"/jobs/{job}/plots/rank")
    monkeypatch.undo()

    assert "failed" in problem(answer, 503)["detail"]
    assert answer.headers["retry-after"] == "30"
    assert shared_api.get(f"/jobs/{job}/plots/rank").status_code == 200
