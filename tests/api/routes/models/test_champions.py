"""Champions over HTTP: promotion, rollback, and the list of moves."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from httpx2 import Response
from starlette.testclient import TestClient
from support.worker_tools import Work

from tests.api.tools import BLANK, JSON, body, eventually, pages, pointers, problem, publish

CHAMPION = "/models/perceptron/champion"
MOVES = f"{CHAMPION}/moves"


@pytest.fixture
def three(work: Work, environment: Path) -> None:
    """Publish three versions of the perceptron on mnist, each better than the previous one."""
    for value in (0.7, 0.8, 0.9):
        publish(work, environment, value=value, seed=int(10 * value))


def reigning(api: TestClient) -> list[tuple[str, int]]:
    """Return the perceptron's champions."""
    return [(c["dataset"], c["version"]) for c in api.get("/models/perceptron").json()["champions"]]


def moved(api: TestClient, **query: Any) -> list[tuple[int | None, int, str]]:
    """Return the moves, newest first: version before, version after, and cause."""
    return [(m["previous"], m["version"], m["by"]) for m in api.get(MOVES, params=query).json()["items"]]


@pytest.mark.usefixtures("three")
def test_the_promoted_version_predicts(api: TestClient) -> None:
    """PUT returns the champion, the list shows it, and /predict soon uses it."""
    before = api.post("/predict", json={"pixels": BLANK}).json()["version"]
    response = api.put(CHAMPION, json={"version": 1, "reason": "small"})
    answer = response.json()

    assert response.status_code == 200
    assert answer.keys() == {"model", "dataset", "version", "moved_at"}
    assert (answer["model"], answer["dataset"], answer["version"]) == ("perceptron", "mnist", 1)
    assert (before, reigning(api)) == (3, [("mnist", 1)])
    assert eventually(lambda: api.post("/predict", json={"pixels": BLANK}).json()["version"] == 1)


@pytest.mark.usefixtures("three")
def test_promoting_a_version_twice_moves_the_champion_once(api: TestClient) -> None:
    """PUT is idempotent: there is one move, and the champion's time does not change."""
    first, again = (api.put(CHAMPION, json={"version": 1}) for _ in range(2))

    assert (again.status_code, again.json()) == (200, first.json())
    assert len(moved(api)) == 4


@pytest.mark.usefixtures("three")
def test_the_log_lists_every_move_newest_first(api: TestClient) -> None:
    """A move has its cause, both versions, a reason and a time; a promotion without a reason gets a default one."""
    api.put(CHAMPION, json={"version": 1, "dataset": "mnist", "reason": "smaller"})
    api.put(CHAMPION, json={"version": 2})
    api.post(f"{CHAMPION}/rollback")
    log = api.get(MOVES).json()["items"]

    assert [(m["previous"], m["version"], m["by"], m["reason"]) for m in log] == [
        (2, 1, "rollback", "undoes the move to version 2 (hand: chosen by hand)"),
        (1, 2, "hand", "chosen by hand"),
        (3, 1, "hand", "smaller"),
        (2, 3, "rule", "0.9000 beats 0.8000 on val_accuracy"),
        (1, 2, "rule", "0.8000 beats 0.7000 on val_accuracy"),
        (None, 1, "rule", "the first version for this data set"),
    ]
    assert sorted((m["at"] for m in log), reverse=True) == [m["at"] for m in log]
    assert all((m["model"], m["dataset"]) == ("perceptron", "mnist") for m in log)


@pytest.mark.usefixtures("three")
def test_the_log_comes_in_pages(api: TestClient) -> None:
    """All moves come once and in order; the Link header names the next page."""
    found = [move for page in pages(api, MOVES, limit=2, dataset="mnist") for move in page]

    assert found == api.get(MOVES).json()["items"]
    assert 'rel="next"' in api.get(MOVES, params={"limit": 2}).headers["link"]
    assert "link" not in api.get(MOVES, params={"limit": 3}).headers
    assert pointers(api.get(MOVES, params={"cursor": "nonsense"})).keys() == {"?cursor"}


@pytest.mark.usefixtures("three")
def test_the_log_can_be_limited_to_a_data_set(api: TestClient, work: Work, environment: Path) -> None:
    """Without a data set all moves are listed; a data set without versions has none."""
    publish(work, environment, dataset="digits")

    assert moved(api, dataset="digits") == [(None, 4, "rule")]
    assert len(moved(api, dataset="mnist")) == 3
    assert len(moved(api)) == 4
    assert moved(api, dataset="letters") == []


@pytest.mark.parametrize("sent", [{}, {"json": {}}, {"json": {"dataset": "mnist"}}, {"json": {"dataset": None}}])
@pytest.mark.usefixtures("three")
def test_the_body_of_a_rollback_is_optional(api: TestClient, sent: dict[str, Any]) -> None:
    """The answer is the previous champion."""
    response = api.post(f"{CHAMPION}/rollback", **sent)

    assert response.status_code == 200, response.text
    assert response.json()["version"] == 2
    assert reigning(api) == [("mnist", 2)]


@pytest.mark.usefixtures("three")
def test_rollbacks_end_at_the_first_version(api: TestClient) -> None:
    """With nothing to undo the answer is 409, says what to do instead, and moves nothing."""
    back = [api.post(f"{CHAMPION}/rollback").json()["version"] for _ in range(2)]
    refusal = problem(api.post(f"{CHAMPION}/rollback"), 409)

    assert back == [2, 1]
    assert f"PUT {CHAMPION}" in refusal["detail"]
    assert len(moved(api)) == 5


@pytest.mark.usefixtures("three")
def test_with_several_champions_a_rollback_must_name_one(api: TestClient, work: Work, environment: Path) -> None:
    """The answer lists the choices."""
    publish(work, environment, dataset="digits")
    detail = problem(api.post(f"{CHAMPION}/rollback"), 409)["detail"]

    assert "digits, mnist" in detail
    assert reigning(api) == [("digits", 4), ("mnist", 3)]


@pytest.mark.usefixtures("three")
def test_a_version_is_not_promoted_for_another_data_set(api: TestClient) -> None:
    """The answer names the version's data set."""
    assert "mnist" in problem(api.put(CHAMPION, json={"version": 1, "dataset": "digits"}), 409)["detail"]
    assert reigning(api) == [("mnist", 3)]


UNKNOWN: dict[str, Callable[[TestClient], Response]] = {
    "a version": lambda api: api.put(CHAMPION, json={"version": 9}),
    "a network to promote": lambda api: api.put("/models/cnn/champion", json={"version": 1}),
    "a network to roll back": lambda api: api.post("/models/cnn/champion/rollback"),
    "a data set to roll back": lambda api: api.post(f"{CHAMPION}/rollback", json={"dataset": "letters"}),
    "a network's log": lambda api: api.get("/models/cnn/champion/moves"),
    "NUL to promote": lambda api: api.put("/models/%00/champion", json={"version": 1}),
    "NUL to roll back": lambda api: api.post("/models/%00/champion/rollback"),
    "NUL's log": lambda api: api.get("/models/%00/champion/moves"),
}


@pytest.mark.usefixtures("three")
def test_unknown_networks_versions_and_data_sets_are_not_found(api: TestClient) -> None:
    """The answer is 404 and names the route to look at, even if the name has a NUL; no champion moves."""
    details = {what: problem(ask(api), 404)["detail"] for what, ask in UNKNOWN.items()}

    assert {what for what, detail in details.items() if "GET /models" not in detail} == set()
    assert pointers(api.get(MOVES, params={"dataset": "a\0b"})).keys() == {"?dataset"}
    assert len(moved(api)) == 3


BAD: list[tuple[Any, str]] = [
    ({}, "#/version"),
    ({"version": "1"}, "#/version"),
    ({"version": 1.5}, "#/version"),
    ({"version": True}, "#/version"),
    ({"version": 0}, "#/version"),
    ({"version": 2**31}, "#/version"),
    ({"version": None}, "#/version"),
    ({"version": 1, "reason": ""}, "#/reason"),
    ({"version": 1, "reason": "a\0b"}, "#/reason"),
    ({"version": 1, "reason": "\ud800"}, "#/reason"),
    ({"version": 1, "reason": "x" * 501}, "#/reason"),
    ({"version": 1, "reason": None}, "#/reason"),
    ({"version": 1, "dataset": "a\0b"}, "#/dataset"),
    ({"version": 1, "dataset": "x" * 101}, "#/dataset"),
    ({"version": 1, "champion": True}, "#/champion"),
    ([], "#"),
]


@pytest.fixture(scope="module")
def one(shared_api: TestClient, shared_work: Work, shared_artifacts: Path) -> TestClient:
    """Return an API with one version, for requests that move nothing."""
    publish(shared_work, shared_artifacts)
    return shared_api


@pytest.mark.parametrize(("sent", "pointer"), BAD)
def test_an_invalid_promotion_is_refused_with_a_pointer(one: TestClient, sent: Any, pointer: str) -> None:
    """The answer is 422, and no champion moves."""
    found = pointers(one.put(CHAMPION, content=body(sent), headers=JSON))

    assert found.keys() == {pointer}
    assert len(moved(one)) == 1


@pytest.mark.parametrize("sent", [{"dataset": "a\0b"}, {"dataset": 1}, {"version": 2}])
def test_an_invalid_rollback_is_refused_with_a_pointer(one: TestClient, sent: dict[str, Any]) -> None:
    """The answer is 422, and no champion moves."""
    assert pointers(one.post(f"{CHAMPION}/rollback", json=sent)).keys() == {f"#/{next(iter(sent))}"}
    assert len(moved(one)) == 1
