"""Invalid input: an error names the field, says what is allowed there, and repeats no value."""

import json
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from tests.api.tools import JSON, TUNE, pointers, post, problem, send

MARK = "unmistakable"  # part of every unknown name; no answer may contain it
NAN, INF, HUGE = float("nan"), float("inf"), 10**400

Case = tuple[Any, str, str]  # the invalid input, the pointer to the field, and a word that the error must contain


def space(name: str, dimension: Any, model: str = "mlp", **fields: Any) -> dict[str, Any]:
    """Return a tuning job that searches one dimension."""
    return {"model": model, "search_space": {name: dimension}, **fields}


def whole(low: Any, high: Any, **fields: Any) -> dict[str, Any]:
    """Return a range of whole numbers."""
    return {"type": "int", "low": low, "high": high, **fields}


def real(low: Any, high: Any, **fields: Any) -> dict[str, Any]:
    """Return a range of numbers."""
    return {"type": "float", "low": low, "high": high, **fields}


def widths(low: Any, high: Any, items: Any) -> dict[str, Any]:
    """Return a search dimension for a list of layer widths."""
    return {"type": "list", "length": whole(low, high), "items": items}


GRID = {"sampler": {"name": "grid"}}
BATCH, RATE, WIDTHS = "#/search_space/batch_size", "#/search_space/learning_rate", "#/search_space/hidden_sizes"
NAMES: list[Case] = [
    ({"model": MARK}, "#/model", "perceptron, shallow, mlp, cnn"),
    ({"model": ""}, "#/model", "cnn"),
    ({"model": 3}, "#/model", "string"),
    ({"model": None}, "#/model", "string"),
    ({"model": [MARK]}, "#/model", "string"),
    ({"model": MARK * 10_000}, "#/model", "at most 100"),
    ({"dataset": MARK}, "#/dataset", "mnist, digits"),
    ({"dataset": "../../etc/passwd"}, "#/dataset", "mnist"),
    ({"dataset": MARK * 10_000}, "#/dataset", "at most 100"),
    ({"split": MARK}, "#/split", "'random' or 'official'"),
    ({"dataset": "digits", "split": "official"}, "#/split", "use random"),
    ({"loss": MARK}, "#/loss", "'cross_entropy' or 'mse'"),
    ({"objective": MARK}, "#/objective", "'val_accuracy' or 'val_loss'"),
]
NUMBERS: list[Case] = [
    ({"seed": -1}, "#/seed", "0 or more"),
    ({"seed": 2**32}, "#/seed", "below 4,294,967,296"),
    ({"seed": HUGE}, "#/seed", "below"),
    ({"seed": -HUGE}, "#/seed", "0 or more"),
    ({"seed": 0.5}, "#/seed", "whole number"),
    ({"seed": NAN}, "#/seed", ""),
    ({"seed": INF}, "#/seed", ""),
    ({"seed": "0"}, "#/seed", "whole number"),
    ({"seed": True}, "#/seed", "whole number"),
    ({"seed": None}, "#/seed", "whole number"),
    ({"early_stopping": True}, "#/early_stopping", ""),
    ({"early_stopping": {"patience": 0}}, "#/early_stopping/patience", "1 or more"),
    ({"early_stopping": {"min_delta": -1e-9}}, "#/early_stopping/min_delta", "0 or more"),
    ({"early_stopping": {"min_delta": NAN}}, "#/early_stopping/min_delta", "finite"),
    ({"early_stopping": {"rule": MARK}}, "#/early_stopping/rule", "'best' or 'previous'"),
    ({"budget": {"epochs": 0}}, "#/budget/epochs", "1 or more"),
    ({"budget": {"epochs": -3}}, "#/budget/epochs", "1 or more"),
    ({"budget": {"epochs": 1001}}, "#/budget/epochs", "1,000 or less"),
    ({"budget": {"epochs": HUGE}}, "#/budget/epochs", "1,000 or less"),
    ({"budget": {"epochs": None}}, "#/budget/epochs", "whole number"),
    ({"budget": {"seconds": 0}}, "#/budget/seconds", "above 0"),
    ({"budget": {"seconds": -1}}, "#/budget/seconds", "above 0"),
    ({"budget": {"seconds": 1e9}}, "#/budget/seconds", "or less"),
    ({"budget": {"seconds": NAN}}, "#/budget/seconds", "finite"),
    ({"budget": {"seconds": INF}}, "#/budget/seconds", "finite"),
    ({"budget": {"seconds": HUGE}}, "#/budget/seconds", "number"),
    ({"budget": {"seconds": MARK}}, "#/budget/seconds", "number"),
    ({"budget": {MARK: 3}}, f"#/budget/{MARK}", "unknown field"),
    ({"budget": None}, "#/budget", ""),
    ({"budget": 20}, "#/budget", ""),
    ({MARK: 1}, f"#/{MARK}", "unknown field"),
    ({"a/b~c": 1}, "#/a~1b~0c", "unknown field"),
    ({"": 1}, "#/", "unknown field"),
]
TUNING: list[Case] = [
    ({"sampler": {"name": MARK}}, "#/sampler", "random"),
    ({"sampler": {"name": MARK * 10_000}}, "#/sampler", "random"),
    ({"sampler": {}}, "#/sampler", "tpe"),
    ({"sampler": {"name": None}}, "#/sampler", "tpe"),
    ({"sampler": "tpe"}, "#/sampler", ""),
    ({"sampler": None}, "#/sampler", ""),
    ({"sampler": {"name": "tpe", "n_startup_trials": 0}}, "#/sampler/n_startup_trials", "1 or more"),
    ({"sampler": {"name": "tpe", "n_ei_candidates": HUGE}}, "#/sampler/n_ei_candidates", "or less"),
    ({"sampler": {"name": "random", MARK: 5}}, f"#/sampler/{MARK}", "unknown field"),
    ({"pruner": {"name": MARK}}, "#/pruner", "successive_halving"),
    ({"pruner": {}}, "#/pruner", "hyperband"),
    ({"pruner": None}, "#/pruner", ""),
    ({"pruner": {"name": "hyperband", "reduction_factor": 1}}, "#/pruner/reduction_factor", "2 or more"),
    ({"pruner": {"name": "median", "n_warmup_epochs": -1}}, "#/pruner/n_warmup_epochs", "0 or more"),
    ({"budget": {}}, "#/budget", "no limit on trials or seconds"),
    ({"budget": {"epochs": 5}}, "#/budget", "no limit on trials or seconds"),
    ({"budget": {"trials": 0}}, "#/budget/trials", "1 or more"),
    ({"budget": {"trials": -5}}, "#/budget/trials", "1 or more"),
    ({"budget": {"trials": 100_001}}, "#/budget/trials", "100,000 or less"),
    ({"budget": {"trials": HUGE}}, "#/budget/trials", "100,000 or less"),
    ({"budget": {"trials": 2.5}}, "#/budget/trials", "whole number"),
    ({"budget": {"trials": "5"}}, "#/budget/trials", "whole number"),
    ({"params": {"batch_size": 3}}, "#/params", "unknown field"),
]
DIMENSIONS: list[Case] = [
    (space(MARK, 0.5), f"#/search_space/{MARK}", "batch_size, learning_rate"),
    (space(MARK * 10_000, 0.5), f"#/search_space/{(MARK * 10)[:60]}", "batch_size, learning_rate"),
    (space("hidden_size", whole(3, 5)), "#/search_space/hidden_size", "hidden_sizes"),
    (space("batch_size", {"type": MARK}), BATCH, "int, float, categorical, list, grid"),
    (space("batch_size", {}), BATCH, "int, float, categorical, list, grid"),
    (space("batch_size", {"type": None}), BATCH, "int, float, categorical, list, grid"),
    (space("batch_size", {"type": {}}), BATCH, "int, float, categorical, list, grid"),
    (space("batch_size", None), BATCH, ""),
    (space("batch_size", MARK), BATCH, "whole number"),
    (space("batch_size", True), BATCH, "whole number"),
    (space("batch_size", 0), BATCH, "1 or more"),
    (space("batch_size", HUGE), BATCH, "4,096 or less"),
    (space("batch_size", [3, 5]), BATCH, "whole number"),
    (space("batch_size", whole(0, 100)), BATCH, "1 or more"),
    (space("batch_size", whole(1, 4097)), BATCH, "4,096 or less"),
    (space("batch_size", whole(100, 3)), BATCH, "swap"),
    (space("batch_size", whole(3, HUGE)), f"{BATCH}/high", "or less"),
    (space("batch_size", whole(3, NAN)), f"{BATCH}/high", ""),
    (space("batch_size", whole(3, 5, step=0)), f"{BATCH}/step", "1 or more"),
    (space("batch_size", whole(3, 5, step=2, log=True)), BATCH, "not both"),
    (space("batch_size", whole(3, 5, **{MARK: 1})), f"{BATCH}/{MARK}", "unknown field"),
    (space("batch_size", {"type": "int", "low": 3}), f"{BATCH}/high", "missing"),
    (space("batch_size", real(1.0, 3.0)), BATCH, "whole number"),
    (space("learning_rate", real(0, 0.1)), RATE, "above 0"),
    (space("learning_rate", real(0, 0.1, log=True)), RATE, "above 0"),
    (space("learning_rate", real(-1, 0.1, log=True)), RATE, "above 0"),
    (space("learning_rate", real(0.1, 1e-5)), RATE, "swap"),
    (space("learning_rate", real(NAN, 0.1)), f"{RATE}/low", "finite"),
    (space("learning_rate", real(1e-5, INF)), f"{RATE}/high", "finite"),
    (space("learning_rate", real(-INF, 0.1)), f"{RATE}/low", "finite"),
    (space("learning_rate", real(1e-5, HUGE)), f"{RATE}/high", "number"),
    (space("learning_rate", real(1e-5, "0.1")), f"{RATE}/high", "number"),
    (space("learning_rate", real(1e-5, 0.1, step=0)), f"{RATE}/step", "above 0"),
    (space("learning_rate", NAN), RATE, "finite"),
    (space("learning_rate", HUGE), RATE, "number"),
    (space("momentum", 1.0), "#/search_space/momentum", "below 1"),
    (space("optimizer", MARK), "#/search_space/optimizer", "adam, sgd"),
    (space("batch_size", {"type": "categorical", "choices": []}), f"{BATCH}/choices", "at least 1"),
    (space("batch_size", {"type": "categorical", "choices": [3, 3]}), BATCH, "repeated"),
    (space("batch_size", {"type": "categorical", "choices": [3, None]}), f"{BATCH}/choices/1", ""),
    (space("batch_size", {"type": "categorical", "choices": 3}), f"{BATCH}/choices", "list"),
    (
        space("batch_size", {"type": "categorical", "choices": list(range(1, 1100))}),
        f"{BATCH}/choices",
        "at most 1,000",
    ),
    (space("learning_rate", {"type": "categorical", "choices": [0.1, NAN]}), f"{RATE}/choices/1", "finite"),
    (space("optimizer", {"type": "categorical", "choices": ["adam", MARK]}), "#/search_space/optimizer", "adam, sgd"),
    (space("batch_size", {"type": "grid", "values": [3, 5]}), BATCH, "categorical"),
    (space("batch_size", {"type": "grid", "values": []}, **GRID), f"{BATCH}/values", "at least 1"),
    (space("batch_size", whole(3, 5), **GRID), BATCH, "list the values"),
    (space("hidden_sizes", widths(1, 2, whole(1, 5)), **GRID), WIDTHS, "list the values"),
    (space("hidden_sizes", 64), WIDTHS, "list"),
    (space("hidden_sizes", []), WIDTHS, "at least 1"),
    (space("hidden_sizes", [0]), WIDTHS, "1 or more"),
    (space("hidden_sizes", widths(0, 3, whole(1, 5))), WIDTHS, "from 1 to 64"),
    (space("hidden_sizes", widths(2, 65, whole(1, 5))), WIDTHS, "from 1 to 64"),
    (space("hidden_sizes", widths(2, 3, {"type": MARK})), f"{WIDTHS}/items", "categorical"),
    (space("hidden_sizes", widths(2, 3, whole(1, 16_385))), WIDTHS, "16,384 or less"),
    (space("hidden_sizes", [16_384, 16_384]), WIDTHS, "at most 50,000,000"),
    (space("hidden_sizes", widths(2, 64, whole(1, 1000))), WIDTHS, "at most 50,000,000"),
    ({"search_space": []}, "#/search_space", "object"),
    ({"search_space": MARK}, "#/search_space", "object"),
]
PARAMS: list[Case] = [
    ({MARK: 1}, f"#/params/{MARK}", "unknown field"),
    ({"batch_size": 0}, "#/params/batch_size", "1 or more"),
    ({"batch_size": HUGE}, "#/params/batch_size", "4,096 or less"),
    ({"batch_size": whole(3, 5)}, "#/params/batch_size", "whole number"),
    ({"learning_rate": NAN}, "#/params/learning_rate", "finite"),
    ({"learning_rate": HUGE}, "#/params/learning_rate", "number"),
    ({"learning_rate": 0}, "#/params/learning_rate", "above 0"),
    ({"optimizer": MARK}, "#/params/optimizer", "adam, sgd"),
    ({"optimizer": MARK * 10_000}, "#/params/optimizer", "adam, sgd"),
    ({"epochs": 0}, "#/params/epochs", "1 or more"),
    ({"hidden_sizes": []}, "#/params/hidden_sizes", "at least 1"),
    ({"hidden_sizes": [64, 0]}, "#/params/hidden_sizes/1", "1 or more"),
    ({"hidden_sizes": [64, MARK]}, "#/params/hidden_sizes/1", "whole number"),
    ({"hidden_sizes": [16_384, 16_384]}, "#/params", "at most 50,000,000"),
    ([], "#/params", "object"),
    (None, "#/params", "object"),
    ({str(n): n for n in range(101)}, "#/params", "at most 100"),
]


def refused() -> Iterator[Any]:
    """Yield every invalid job as (kind, body, pointer, words)."""
    for kind in ("tune", "train"):
        for wrong, pointer, words in [*NAMES, *NUMBERS]:
            yield pytest.param(kind, {"model": "mlp", **wrong}, pointer, words, id=f"{kind} {str(wrong)[:50]}")
    for wrong, pointer, words in [*TUNING, *DIMENSIONS]:
        yield pytest.param("tune", {"model": "mlp", **wrong}, pointer, words, id=f"tune {str(wrong)[:80]}")
    for wrong, pointer, words in PARAMS:
        yield pytest.param("train", {"model": "mlp", "params": wrong}, pointer, words, id=f"train {str(wrong)[:50]}")


@pytest.mark.parametrize(("kind", "wrong", "pointer", "words"), list(refused()))
def test_an_invalid_job_is_refused_with_a_pointer_to_the_field(
    shared_api: TestClient, kind: str, wrong: Any, pointer: str, words: str
) -> None:
    """The answer is 422 with a pointer to the field and the allowed values; it repeats no value of the input."""
    response = send(shared_api, f"/jobs/{kind}", wrong)
    found = pointers(response)

    assert pointer in found
    assert words in found[pointer]
    assert MARK not in "".join(found.values())
    assert len(response.content) < 4000


@pytest.mark.parametrize("dimension", [None, [[1]], {"type": "categorical", "choices": [None]}])
def test_every_pointer_names_a_place_in_the_body(shared_api: TestClient, dimension: Any) -> None:
    """No pointer names a branch of our own types."""
    sent = space("batch_size", dimension)
    for pointer in pointers(send(shared_api, "/jobs/tune", sent)):
        place: Any = sent
        for step in pointer.split("/")[1:]:
            place = place[int(step)] if isinstance(place, list) else place[step]

        assert place is not sent


@pytest.mark.parametrize("pointer", ["#/search_space/optimizer", "#/params/optimizer"])
def test_errors_do_not_show_pydantics_prefix(shared_api: TestClient, pointer: str) -> None:
    """Pydantic puts "Value error" before the text of a ValueError; the API removes it."""
    name = pointer.split("/")[1]
    kind = "tune" if name == "search_space" else "train"
    found = pointers(send(shared_api, f"/jobs/{kind}", {"model": "mlp", name: {"optimizer": MARK}}))

    assert not found[pointer].startswith("Value error")


def test_all_errors_of_a_request_are_reported_at_once(shared_api: TestClient) -> None:
    """A request with three mistakes gets three errors."""
    found = pointers(send(shared_api, "/jobs/tune", {**TUNE, "seed": -1, "loss": "hinge", "budget": {"trials": 0}}))

    assert found.keys() == {"#/seed", "#/loss", "#/budget/trials"}


# --- bodies that are not jobs


@pytest.mark.parametrize("path", ["/jobs/tune", "/jobs/train", "/predict"])
@pytest.mark.parametrize("text", ["[]", "null", "3", '"tune"', "true", "NaN", "[{}]"])
def test_a_body_that_is_not_an_object_is_refused(shared_api: TestClient, path: str, text: str) -> None:
    """The pointer names the whole body."""
    assert "#" in pointers(shared_api.post(path, content=text, headers=JSON))


@pytest.mark.parametrize("path", ["/jobs/tune", "/jobs/train", "/predict"])
@pytest.mark.parametrize(
    "text", ["{", "", " ", "{'model': 'cnn'}", '{"model": "cnn",}', "model=cnn", "\0", "{}{}", '{"model": "cnn']
)
def test_a_body_that_is_not_json_is_refused(shared_api: TestClient, path: str, text: str) -> None:
    """The pointer names the whole body."""
    assert "#" in pointers(shared_api.post(path, content=text, headers=JSON))


@pytest.mark.parametrize("path", ["/jobs/tune", "/jobs/train", "/predict"])
def test_the_error_for_an_empty_object_names_the_missing_field(shared_api: TestClient, path: str) -> None:
    """The answer says that the required field is missing."""
    found = pointers(shared_api.post(path, content="{}", headers=JSON))

    assert found.keys() == {"#/pixels" if path == "/predict" else "#/model"}
    assert "missing" in "".join(found.values())


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\xfd",
        b'{"model": "\xff"}',
        b'{"model": "cnn", "seed": 1' + b"0" * 5000 + b"}",
        b'{"model": "cnn", "x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b'{"x":' * 10_000 + b"1" + b"}" * 10_000,
        b'{"model": "cnn", "search_space": ' + b'{"x":' * 500 + b"1" + b"}" * 500 + b"}",
        b'{"model": "mlp", "search_space": {"hidden_sizes": ' + b"[" * 500 + b"]" * 500 + b"}}",
        b'{"model": "mlp", "params": ' + b'{"x":' * 500 + b"1" + b"}" * 500 + b"}",
        b'{"model": "mlp", "params": {"hidden_sizes": ' + b"[" * 500 + b"]" * 500 + b"}}",
        b'{"pixels": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    ],
    ids=lambda content: repr(content[:45]),
)
@pytest.mark.parametrize("path", ["/jobs/tune", "/jobs/train", "/predict"])
def test_a_body_that_breaks_a_parser_is_a_client_error(shared_api: TestClient, path: str, content: bytes) -> None:
    """Bytes that are not text, numbers of 5,000 digits, and 10,000 levels of nesting are answered with 400 or 422."""
    response = shared_api.post(path, content=content, headers=JSON)

    problem(response, 400 if response.status_code == 400 else 422)


ODD = ["\ud800", "a\udfffb", "\0", "a\0b", "\x1b[31m", "\u202e", "\uffff", "😀", "x" * 200_000, "%s", "{}", "'; --"]
PLACES: dict[str, Any] = {
    "model": lambda odd: {**TUNE, "model": odd},
    "dataset": lambda odd: {**TUNE, "dataset": odd},
    "split": lambda odd: {**TUNE, "split": odd},
    "field": lambda odd: {**TUNE, odd: 1},
    "budget": lambda odd: {**TUNE, "budget": {odd: 1}},
    "sampler": lambda odd: {**TUNE, "sampler": {"name": odd}},
    "sampler's field": lambda odd: {**TUNE, "sampler": {"name": "tpe", odd: 1}},
    "dimension": lambda odd: space(odd, 1),
    "type": lambda odd: space("optimizer", {"type": odd}),
    "value": lambda odd: space("optimizer", odd),
    "choice": lambda odd: space("optimizer", {"type": "categorical", "choices": ["adam", odd]}),
    "range's field": lambda odd: space("batch_size", whole(1, 2, **{odd: 1})),
    "parameter": lambda odd: {"model": "mlp", "params": {odd: 1}},
    "parameter's value": lambda odd: {"model": "mlp", "params": {"optimizer": odd}},
    "pixel": lambda odd: {"pixels": [odd]},
    "predicted model": lambda odd: {"pixels": [0] * 784, "model": odd},
    "predicted data set": lambda odd: {"pixels": [0] * 784, "dataset": odd},
}


def test_odd_text_is_refused_in_every_field(api: TestClient) -> None:
    """Lone surrogates, NUL, control characters and very long text are refused briefly, on both databases."""
    wrong = []
    for place, make in PLACES.items():
        for odd in ODD:
            sent = make(odd)
            path = "/predict" if "pixels" in sent else "/jobs/train" if "params" in sent else "/jobs/tune"
            answer = send(api, path, sent)
            if answer.status_code != 422 or len(answer.content) > 4000:
                wrong.append((place, odd[:10], answer.status_code, len(answer.content)))

    assert wrong == []


# --- headers and sizes


@pytest.mark.parametrize("path", ["/jobs/tune", "/jobs/train", "/predict"])
@pytest.mark.parametrize(
    "kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x" * 999]
)
def test_a_body_of_another_content_type_is_refused(shared_api: TestClient, path: str, kind: str | None) -> None:
    """The answer is 415 with the type to send. For this reason no form of another site can post a job."""
    response = shared_api.post(path, content=json.dumps(TUNE), headers={"content-type": kind} if kind else {})

    assert "application/json" in problem(response, 415)["detail"]


@pytest.mark.parametrize("path", ["/jobs/tune", "/jobs/train", "/predict"])
def test_a_body_of_30_megabytes_is_refused(shared_api: TestClient, path: str) -> None:
    """The answer is 413 in the usual form."""
    problem(shared_api.post(path, content=b"x" * 30_000_000, headers=JSON), 413)


@pytest.mark.parametrize("path", ["/jobs/tune", "/jobs/train", "/predict"])
def test_a_body_of_unknown_length_is_refused_if_too_long(shared_api: TestClient, path: str) -> None:
    """Without a Content-Length, the bytes that arrive are counted."""
    response = shared_api.post(path, content=(b"x" * 1_000_000 for _ in range(30)), headers=JSON)

    assert "content-length" not in response.request.headers
    problem(response, 413)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_real_server_survives_an_endless_body(url: str) -> None:
    """Over a socket the answer is 413 or a closed connection, and the next request is answered."""
    endless = (b"x" * 100_000 for _ in range(300))
    with httpx2.Client(base_url=url) as client:
        try:
            status = client.post("/jobs/tune", content=endless, headers=JSON).status_code
        except httpx2.TransportError:  # the server closed the connection while the client was still sending
            status = 413
        alive = client.get("/livez").status_code

    assert (status, alive) == (413, 200)


def test_a_short_body_of_unknown_length_is_accepted(shared_api: TestClient) -> None:
    """A job may be sent in pieces."""
    pieces = (piece for piece in (b'{"model": ', b'"cnn"}'))

    assert shared_api.post("/jobs/tune", content=pieces, headers=JSON).status_code == 202


# --- paths and queries


IDS = ["none", "000000000000", "%00", "%20", "%2E%2E", "a%0Ab", "%F0%9F%98%80", "'", "x" * 64]


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("GET", "/trials"), ("GET", "/trials/0"), ("POST", "/cancel")],
    ids=["job", "trials", "trial", "cancel"],
)
def test_an_unknown_job_id_is_not_found(api: TestClient, method: str, path: str) -> None:
    """Every route of a job answers 404 on both databases, for any text as the id."""
    answers = {job_id: api.request(method, f"/jobs/{job_id}{path}") for job_id in IDS}

    assert {job_id: answer.status_code for job_id, answer in answers.items()} == dict.fromkeys(IDS, 404)
    for answer in answers.values():
        problem(answer, 404)


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("GET", "/trials"), ("POST", "/cancel")])
def test_a_job_id_that_is_too_long_gets_404_or_422(shared_api: TestClient, method: str, path: str) -> None:
    """The path is refused, not the missing content type, and the answer is short."""
    response = shared_api.request(method, f"/jobs/{'x' * 3000}{path}")

    assert response.status_code in (404, 422)
    assert len(response.content) < 2000


def test_an_unknown_model_is_not_found(api: TestClient) -> None:
    """The answer is a short 404 on both databases, for any text as the name."""
    names = ["none", "%00", "%20", "x" * 3000, "%F0%9F%98%80"]
    answers = {name: api.get(f"/models/{name}") for name in names}

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(names, 404)
    assert max(len(answer.content) for answer in answers.values()) < 1000


@pytest.mark.parametrize("path", ["/nothing", "/jobs/a/b/c", "/job", "/static/../etc/passwd", "/%00", "/x" * 2000])
def test_an_unknown_path_is_not_found(shared_api: TestClient, path: str) -> None:
    """The answer is a short 404 that says where all paths are listed."""
    response = shared_api.get(path)

    assert "/docs" in problem(response, 404)["detail"]
    assert len(response.content) < 1000


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/jobs", "GET"),
        ("PUT", "/jobs/tune", "POST"),
        ("PUT", "/jobs/000000000000", "GET"),
        ("GET", "/jobs/000000000000/cancel", "POST"),
        ("DELETE", "/jobs/000000000000/trials", "GET"),
        ("GET", "/predict", "POST"),
        ("POST", "/catalog", "GET"),
        ("DELETE", "/models/cnn", "GET"),
        ("POST", "/livez", "GET"),
    ],
)
def test_a_method_that_is_not_allowed_is_refused(shared_api: TestClient, method: str, path: str, allowed: str) -> None:
    """The answer is 405 with the allowed methods."""
    response = shared_api.request(method, path)

    problem(response, 405)
    assert allowed in response.headers["allow"]


QUERIES = [
    ("/jobs", "cursor", "nonsense", "begin without one"),
    ("/jobs", "cursor", "", "begin without one"),
    ("/jobs", "cursor", "é\0\ud7ff", "begin without one"),
    ("/jobs", "cursor", "bnVsbA", "begin without one"),  # null
    ("/jobs", "cursor", "WzEsMl0", "begin without one"),  # [1,2]
    ("/jobs", "cursor", "W10", "begin without one"),  # []
    ("/jobs", "cursor", "x" * 2001, "at most 2,000"),
    ("/jobs", "limit", "0", "1 or more"),
    ("/jobs", "limit", "-1", "1 or more"),
    ("/jobs", "limit", "1001", "1,000 or less"),
    ("/jobs", "limit", "9" * 400, "1,000 or less"),
    ("/jobs", "limit", "9" * 9000, ""),
    ("/jobs", "limit", "many", "whole number"),
    ("/jobs", "limit", "1.5", "whole number"),
    ("/jobs", "limit", "", "whole number"),
    ("/jobs", "state", MARK, "'queued', 'running'"),
    ("/jobs", "state", "QUEUED", "'queued', 'running'"),
    ("/jobs", "state", "\0", "'queued', 'running'"),
    ("/trials", "state", MARK, "'running', 'completed'"),
    ("/trials", "state", "queued", "'running', 'completed'"),
    ("/trials", "limit", "0", "1 or more"),
    ("/trials", "cursor", "nonsense", "begin without one"),
    ("/trials", "order_by", MARK, "number, state"),
    ("/trials", "order_by", "x" * 101, "at most 100"),
    ("/trials", "order_by", "\0", "number, state"),
    ("/catalog", "batch_size", "0", "1 or more"),
    ("/catalog", "batch_size", "4097", "4,096 or less"),
    ("/catalog", "batch_size", "five", "whole number"),
    ("/catalog", "dataset", "x" * 101, "at most 100"),
    ("/catalog", "dataset", MARK, "mnist, digits"),
]


@pytest.mark.parametrize(("path", "name", "value", "words"), QUERIES, ids=lambda value: repr(value)[:20])
def test_an_invalid_query_parameter_is_refused_by_name(
    shared_api: TestClient, path: str, name: str, value: str, words: str
) -> None:
    """The answer is 422 with the parameter's name and the allowed values."""
    target = f"/jobs/{post(shared_api)['id']}/trials" if path == "/trials" else path
    response = shared_api.get(target, params={name: value})
    found = pointers(response)

    assert found.keys() == {f"?{name}"}
    assert words in found[f"?{name}"]
    assert MARK not in response.text
