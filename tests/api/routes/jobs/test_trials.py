"""A job's trials: pages, orders, filters, CSV, and the detail of a trial."""

import base64
import csv
import json
import random
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient
from support.worker_tools import Work, measurement

from ml.networks import networks
from ml.records import Finished, Started, TrialState
from tests.api.tools import insert, pages, parameters, pointers, post, problem

CSV = {"accept": "text/csv"}
RESULTS = ["epochs_run", "best_epoch", "train_loss", "val_loss", "val_accuracy", "value", "seconds", "flops", "weights"]
COLUMNS = ["number", "state", "created_at", "finished_at", *RESULTS]
PARAMS = ["batch_size", "learning_rate", "optimizer", "momentum", "weight_decay", "epochs", "hidden_size"]
COUNT = 40

Row = dict[str, Any]


def rows(count: int = COUNT) -> list[Row]:
    """Return trials with ties and nulls in every column, shuffled in a fixed way."""
    draw = random.Random(0)
    losses = [None, 0.1, 0.25, 1 / 3, 1e-9, 1e300]

    def row(number: int) -> Row:
        params = {
            "batch_size": draw.choice([9, 10, 100]),
            "learning_rate": draw.choice([1e-5, 0.1, 2e-4, 1 / 3]),
            "optimizer": draw.choice(["adam", "sgd"]),
            "momentum": draw.choice([0, 0.9]),
            "weight_decay": 0.0,
            "epochs": draw.choice([None, 3, 20]),
            "hidden_size": draw.choice([64, 1000]),
        }
        return {
            "number": number,
            "state": draw.choice(list(TrialState)),
            "params": draw.choice([params, params, params, None]),
            "created_at": draw.choice([1e9, 1e9 + 1 / 3, 2.5e9]),
            "finished_at": draw.choice([None, 2e9, 2e9 + 0.1]),
            "epochs_run": draw.choice([0, 2, 10]),
            "best_epoch": draw.choice([None, 1.0, 2.0, 10.0]),
            "seconds": draw.choice([0.0, 1 / 3, 7.0]),
            "flops": draw.choice([None, 2**40]),
            "weights": draw.choice([None, 10, 2**33]),
            **{name: draw.choice(losses) for name in ("train_loss", "val_loss", "val_accuracy", "value")},
        }

    return draw.sample([row(number) for number in range(count)], count)


def key(row: Row, column: str) -> Any:
    """Return a row's value of a column or hyper-parameter."""
    return row[column] if column in row else (row["params"] or {}).get(column)


def ordered(trials: list[Row], column: str, descending: bool) -> list[int]:
    """Return the numbers of trials in order: nulls last, ties by number."""
    known = [row for row in sorted(trials, key=lambda row: row["number"]) if key(row, column) is not None]
    missing = sorted(row["number"] for row in trials if key(row, column) is None)
    by_key = sorted(known, key=lambda row: key(row, column), reverse=descending)  # stable, also in reverse
    return [row["number"] for row in by_key] + missing


def numbers(items: list[Row]) -> list[int]:
    """Return the numbers of trials."""
    return [trial["number"] for trial in items]


def filled(api: TestClient, work: Work, trials: list[Row], model: str = "shallow") -> str:
    """Submit a job that has these trials; return the path of its list."""
    job_id = post(api, model=model, budget={"trials": 1000})["id"]
    insert(work, job_id, trials)
    return f"/jobs/{job_id}/trials"


def table(response: Response) -> tuple[list[str], list[dict[str, str]]]:
    """Return the header of a CSV answer, and its rows by column."""
    assert response.status_code == 200, response.text
    header, *found = csv.reader(response.text.splitlines())
    return header, [dict(zip(header, row, strict=True)) for row in found]


def links(api: TestClient, path: str, **params: Any) -> Iterator[list[Row]]:
    """Yield every page of a list, by following the Link header."""
    response = api.get(path, params=params)
    yield response.json()["items"]
    while "next" in response.links:
        response = api.get(response.links["next"]["url"])
        yield response.json()["items"]


# --- order and pages


def test_pages_in_any_order_list_every_trial_once(api: TestClient, work: Work) -> None:
    """In both directions pages equal Python's sort: nulls last, ties by number, no gap, no repeat."""
    trials = rows()
    path = filled(api, work, trials)

    for column, (sign, descending) in product([*COLUMNS, *PARAMS], [("", False), ("-", True)]):
        found = [numbers(page) for page in pages(api, path, order_by=sign + column, limit=7)]

        assert [number for page in found for number in page] == ordered(trials, column, descending), sign + column
        assert [len(page) for page in found] == [7, 7, 7, 7, 7, 5]


def test_trials_are_ordered_by_number_by_default(api: TestClient, work: Work) -> None:
    """Trials get their numbers in the order of their start."""
    path = filled(api, work, rows())

    assert numbers(api.get(path).json()["items"]) == list(range(COUNT))


def test_numbers_are_ordered_as_numbers(api: TestClient, work: Work) -> None:
    """A batch size of 9 comes before 10 and 100, although its text does not."""
    trials = [{**row, "params": {"batch_size": size}} for row, size in zip(rows(3), (100, 9, 10), strict=True)]
    path = filled(api, work, trials)
    found = api.get(path, params={"order_by": "batch_size"}).json()["items"]

    assert [trial["params"]["batch_size"] for trial in found] == [9, 10, 100]


def test_new_trials_come_at_the_end(api: TestClient, work: Work) -> None:
    """A client that pages by number while trials are added misses and repeats none."""
    trials = sorted(rows(30), key=lambda row: row["number"])
    path = filled(api, work, trials[:10])
    seen = []
    for n, page in enumerate(pages(api, path, limit=5)):
        seen += numbers(page)
        if n < 4:
            insert(work, path.split("/")[2], trials[10 + 5 * n : 15 + 5 * n])

    assert seen == list(range(30))


@pytest.mark.parametrize("state", TrialState)
def test_trials_can_be_limited_to_a_state(api: TestClient, work: Work, state: TrialState) -> None:
    """The filter holds on every page and keeps the order."""
    trials = rows()
    path = filled(api, work, trials)
    found = [trial for page in pages(api, path, state=state, order_by="-val_loss", limit=2) for trial in page]

    assert numbers(found) == ordered([row for row in trials if row["state"] == state], "val_loss", descending=True)
    assert {trial["state"] for trial in found} <= {state}


def test_another_jobs_trials_are_not_shown(api: TestClient, work: Work) -> None:
    """Trial numbers belong to their job."""
    path, other = filled(api, work, rows(3)), filled(api, work, rows(5))

    assert len(api.get(path).json()["items"]) == 3
    assert len(api.get(other).json()["items"]) == 5


def test_a_page_links_to_the_next(api: TestClient, work: Work) -> None:
    """The Link header leads through the same pages as the cursor; the last page has none."""
    path = filled(api, work, rows())
    query = {"order_by": "-learning_rate", "state": "running", "limit": 1}
    linked = [numbers(page) for page in links(api, path, **query)]

    assert linked == [numbers(page) for page in pages(api, path, **query)]
    assert len(linked) > 1


def test_the_last_page_has_no_link(api: TestClient, work: Work) -> None:
    """A page that holds everything links to no other."""
    response = api.get(filled(api, work, rows(5)), params={"limit": 5})

    assert "link" not in response.headers
    assert response.json()["next_cursor"] is None


# --- refused requests


@pytest.mark.parametrize(
    "column", ["colour", "", "--number", "hidden_size", "params", "id", "number; DROP TABLE trial"]
)
def test_the_error_for_an_unknown_column_lists_the_known_columns(api: TestClient, column: str) -> None:
    """The perceptron has no hidden layer to order by; the answer lists the possible columns."""
    path = f"/jobs/{post(api)['id']}/trials"
    found = pointers(api.get(path, params={"order_by": column}))

    assert found.keys() == {"?order_by"}
    assert "val_accuracy" in found["?order_by"]
    assert "learning_rate" in found["?order_by"]


def test_trials_cannot_be_ordered_by_a_column_of_lists(api: TestClient) -> None:
    """Lists such as layer widths have no order."""
    path = f"/jobs/{post(api, model='mlp')['id']}/trials"

    assert "?order_by" in pointers(api.get(path, params={"order_by": "hidden_sizes"}))


def test_a_cursor_of_another_order_is_refused(api: TestClient, work: Work) -> None:
    """A cursor is valid for the order that it was made for."""
    path = filled(api, work, rows())
    cursor = api.get(path, params={"order_by": "value", "limit": 5}).json()["next_cursor"]

    for order in ("-value", "number", "learning_rate"):
        found = pointers(api.get(path, params={"order_by": order, "cursor": cursor}))

        assert "begin without one" in found["?cursor"]


FORGED: list[tuple[str, Any, Any]] = [
    ("number", "text", 1),
    ("number", 2**63, 1),
    ("number", -(2**63) - 1, 1),
    ("number", 1e308, 1),
    ("number", 1, "text"),
    ("number", 1, 2**63),
    ("number", 1, True),
    ("number", [], 1),
    ("number", {}, 1),
    ("value", "text", 1),
    ("value", None, "text"),
    ("state", 3, 1),
    ("state", "a\0b", 1),
    ("learning_rate", "text", 1),
    ("optimizer", 3, 1),
    ("optimizer", "a\0b", 1),
]


def test_a_forged_cursor_is_refused(api: TestClient) -> None:
    """A made-up cursor gives a client error or a page, never a server error."""
    path = f"/jobs/{post(api, model='shallow')['id']}/trials"
    wrong = []
    for order, key, tie in FORGED:
        cursor = base64.urlsafe_b64encode(json.dumps([order, key, tie]).encode()).decode().rstrip("=")
        answer = api.get(path, params={"order_by": order, "cursor": cursor})
        if answer.status_code not in (200, 422):
            wrong.append((order, key, tie, answer.status_code))

    assert wrong == []


# --- CSV


def test_csv_has_a_header_and_a_row_per_trial(api: TestClient, work: Work) -> None:
    """Columns are number, state, every hyper-parameter, results, duration, and last the rules of the job."""
    response = api.get(filled(api, work, rows()), headers=CSV)
    header, found = table(response)

    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert header[:2] == ["number", "state"]
    assert header[-len(RESULTS) - 1 :] == [*RESULTS, "rules"]
    assert len(header) == 2 + len(parameters("shallow")) + len(RESULTS) + 1
    assert [int(row["number"]) for row in found] == list(range(COUNT))


@pytest.mark.parametrize("model", networks)
def test_every_column_of_a_csv_has_a_unique_name(shared_api: TestClient, model: str) -> None:
    """A program that reads columns by name loses none."""
    header, _ = table(shared_api.get(f"/jobs/{post(shared_api, model=model)['id']}/trials", headers=CSV))

    assert len(set(header)) == len(header)


def test_csv_agrees_with_json(api: TestClient, work: Work) -> None:
    """Every number of every trial is equal in both, and null is an empty cell."""
    path = filled(api, work, rows())
    _, found = table(api.get(path, headers=CSV))
    items = api.get(path, params={"limit": 1000}).json()["items"]

    for row, trial in zip(found, items, strict=True):
        expected = {name: (trial["params"] or {}).get(name) for name in PARAMS}
        expected |= {name: trial[name] for name in ("number", "state", *RESULTS)}
        assert {name: row[name] for name in expected} == {
            name: "" if value is None else str(value) for name, value in expected.items()
        }


def test_csv_has_all_trials_of_a_large_job(api: TestClient, work: Work) -> None:
    """One file has more trials than one read fetches, in the requested order."""
    trials = rows(1203)
    path = filled(api, work, trials)
    _, found = table(api.get(path, params={"order_by": "-val_loss", "limit": 3}, headers=CSV))

    assert [int(row["number"]) for row in found] == ordered(trials, "val_loss", descending=True)


def test_csv_can_be_limited_to_a_state(api: TestClient, work: Work) -> None:
    """The filter holds for CSV too."""
    trials = rows()
    _, found = table(api.get(filled(api, work, trials), params={"state": "pruned"}, headers=CSV))

    assert {row["state"] for row in found} == {"pruned"}
    assert len(found) == sum(row["state"] == TrialState.PRUNED for row in trials)


def test_csv_without_trials_is_a_header(api: TestClient) -> None:
    """A job without trials has a table without rows."""
    header, found = table(api.get(f"/jobs/{post(api)['id']}/trials", headers=CSV))

    assert header[0] == "number"
    assert found == []


def test_csv_writes_a_list_into_one_cell(api: TestClient, work: Work) -> None:
    """The widths of layers are in one cell, separated by spaces."""
    trials = [{**row, "params": {"hidden_sizes": [977, 878]}} for row in rows(2)]
    _, found = table(api.get(filled(api, work, trials, "mlp"), headers=CSV))

    assert [row["hidden_sizes"] for row in found] == ["977 878", "977 878"]


@pytest.mark.parametrize(("accept", "kind"), [("*/*", "json"), ("application/json", "json"), ("text/csv, */*", "csv")])
def test_the_accept_header_chooses_the_format(shared_api: TestClient, accept: str, kind: str) -> None:
    """`Accept: text/csv` gets CSV, every other value JSON."""
    response = shared_api.get(f"/jobs/{post(shared_api)['id']}/trials", headers={"accept": accept})

    assert kind in response.headers["content-type"]


@pytest.mark.parametrize("query", [{"order_by": "colour"}, {"state": "asleep"}, {"limit": "0"}])
def test_csv_refuses_the_same_requests_as_json(shared_api: TestClient, query: dict[str, str]) -> None:
    """An invalid request gets an error instead of an incomplete table."""
    path = f"/jobs/{post(shared_api)['id']}/trials"

    assert pointers(shared_api.get(path, params=query, headers=CSV)).keys() == {f"?{next(iter(query))}"}


# --- one trial


def test_a_trial_shows_every_epoch(api: TestClient, work: Work) -> None:
    """A trial shows all measurements in order, and the seeds that repeat the trial."""
    job_id = post(api)["id"]
    claim = work.leases.claim()
    assert claim is not None
    params = {"batch_size": 32, "learning_rate": 0.01, "optimizer": "adam"}
    work.ledger.record(claim, [Started(0, params, {"learning_rate": 0.01}, {}, 11, 12, 0, lane=2)], {})
    for epoch, accuracy in ((1, 0.5), (2, None), (3, 0.75)):
        work.measure(claim, 0, measurement(epoch, accuracy))
    work.ledger.record(claim, [Finished(0, TrialState.PRUNED, "worse", measurement(3, 0.75), 0.75, None)], {})
    trial = api.get(f"/jobs/{job_id}/trials/0").json()

    assert [row["epoch"] for row in trial["measurements"]] == [1, 2, 3]
    assert [row["images_seen"] for row in trial["measurements"]] == [100, 200, 300]
    assert [row["val_accuracy"] for row in trial["measurements"]] == [0.5, None, 0.75]
    assert (trial["epochs_run"], trial["best_epoch"], trial["value"], trial["reason"]) == (3, 3, 0.75, "worse")
    assert (trial["init_seed"], trial["start_step"], trial["params"]) == (11, 0, params)
    assert isinstance(trial["stream_seed"], int)
    assert (trial["pack"], trial["lane"]) == (claim.pack_id, 2)


def test_a_list_and_a_trial_agree(api: TestClient, work: Work) -> None:
    """The list shows a trial as its detail does, without the detail's extra fields."""
    job_id = post(api)["id"]
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, 0.5)
    (listed,) = api.get(f"/jobs/{job_id}/trials").json()["items"]
    trial = api.get(f"/jobs/{job_id}/trials/0").json()

    assert trial.keys() - listed.keys() == {"measurements", "init_seed", "stream_seed", "start_step"} | {
        "pack",
        "lane",
        "fresh",
    }
    assert listed == {name: trial[name] for name in listed}


def test_a_trial_that_has_just_begun_has_no_results(api: TestClient, work: Work) -> None:
    """Between the claim and the suggestion a trial runs without hyper-parameters."""
    job_id = post(api)["id"]
    work.leases.claim()
    trial = api.get(f"/jobs/{job_id}/trials/0").json()

    assert (trial["state"], trial["params"], trial["value"], trial["measurements"]) == ("running", None, None, [])


@pytest.mark.parametrize("number", ["0", "1", "2147483647"])
def test_an_unknown_trial_is_not_found(shared_api: TestClient, number: str) -> None:
    """The answer names the route that lists trials."""
    path = f"/jobs/{post(shared_api)['id']}/trials"

    assert f"GET {path}" in problem(shared_api.get(f"{path}/{number}"), 404)["detail"]


@pytest.mark.parametrize("number", ["-1", "one", "1.5", "2147483648", "9" * 400, "NaN", "%00"])
def test_an_invalid_trial_number_is_refused(shared_api: TestClient, number: str) -> None:
    """Text, fractions and too large numbers are refused; the error names the field."""
    path = f"/jobs/{post(shared_api)['id']}/trials"

    assert pointers(shared_api.get(f"{path}/{number}")).keys() == {"/number"}
