"""The OpenAPI document, and unexpected bodies."""

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.openapi.models import OpenAPI
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from support.worker_tools import Work

from tests.api.tools import RAW, publish, send

ROUTES = [
    ("post", "/jobs/experiments"),
    ("get", "/jobs/experiments"),
    ("get", "/jobs/experiments/{group_id}"),
    ("post", "/jobs/train"),
    ("post", "/jobs/tune"),
    ("get", "/jobs"),
    ("get", "/jobs/{job_id}"),
    ("get", "/jobs/{job_id}/trials"),
    ("get", "/jobs/{job_id}/trials/{number}"),
    ("patch", "/jobs/{job_id}"),
    ("post", "/jobs/{job_id}/cancel"),
    ("post", "/jobs/{job_id}/pause"),
    ("post", "/jobs/{job_id}/resume"),
    ("get", "/jobs/{job_id}/curves"),
    ("get", "/jobs/{job_id}/events"),
    ("post", "/jobs/predict"),
    ("post", "/jobs/evaluate"),
    ("get", "/jobs/{job_id}/predictions"),
    ("post", "/jobs/{job_id}/trials"),
    ("post", "/jobs/{job_id}/trials/{number}/cancel"),
    ("post", "/jobs/{job_id}/trials/{number}/retry"),
    ("get", "/jobs/{job_id}/analysis"),
    ("get", "/jobs/{job_id}/plots/{name}"),
    ("get", "/jobs/{job_id}/pareto"),
    ("get", "/plotly.min.js"),
    ("get", "/models"),
    ("get", "/models/{model}"),
    ("get", "/models/{model}/versions/{version}"),
    ("get", "/models/{model}/versions/{version}/checkpoint"),
    ("get", "/models/{model}/versions/{version}/onnx"),
    ("get", "/models/{model}/versions/{version}/card"),
    ("put", "/models/{model}/champion"),
    ("post", "/models/{model}/champion/rollback"),
    ("get", "/models/{model}/champion/moves"),
    ("post", "/predict"),
    ("get", "/catalog"),
    ("get", "/datasets"),
    ("post", "/datasets"),
    ("get", "/datasets/{name}"),
    ("get", "/datasets/{name}/versions/{version}"),
    ("get", "/datasets/{name}/versions/{version}/data"),
    ("get", "/livez"),
    ("get", "/readyz"),
    ("get", "/metrics"),
    ("get", "/v2"),
    ("get", "/v2/health/live"),
    ("get", "/v2/health/ready"),
    ("get", "/v2/models/{name}"),
    ("get", "/v2/models/{name}/ready"),
    ("post", "/v2/models/{name}/infer"),
    ("get", "/v2/models/{name}/versions/{version}"),
    ("get", "/v2/models/{name}/versions/{version}/ready"),
    ("post", "/v2/models/{name}/versions/{version}/infer"),
]
METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}

Document = dict[str, Any]


@pytest.fixture
def document(shared_api: TestClient) -> Document:
    """Return the OpenAPI document."""
    found: Document = shared_api.get("/openapi.json").json()
    return found


def operations(document: Document) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every operation as (method, path, operation)."""
    for path, item in document["paths"].items():
        yield from ((method, path, item[method]) for method in METHODS & item.keys())


def references(node: Any) -> Iterator[str]:
    """Yield every $ref in a part of a document."""
    if isinstance(node, dict):
        yield from ([node["$ref"]] if isinstance(node.get("$ref"), str) else [])
        for child in node.values():
            yield from references(child)
    elif isinstance(node, list):
        for child in node:
            yield from references(child)


def resolved(document: Document, reference: str) -> Any:
    """Return the schema that a $ref points to."""
    found: Any = document
    for step in reference.removeprefix("#/").split("/"):
        found = found[step.replace("~1", "/").replace("~0", "~")]
    return found


# --- the document


def test_the_document_is_valid(document: Document) -> None:
    """The document is OpenAPI 3.1, every reference has a target, and no two operations share an id."""
    OpenAPI.model_validate(document)
    ids = [operation["operationId"] for _, _, operation in operations(document)]

    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Chiffre"
    assert len(set(ids)) == len(ids)
    assert all(resolved(document, reference) for reference in references(document))


def test_every_parameter_of_a_path_is_declared(document: Document) -> None:
    """The names in braces are the path's parameters, each required."""
    for _, path, operation in operations(document):
        declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path" and p["required"]}

        assert declared == set(re.findall(r"{(\w+)}", path))


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_a_route_of_the_design_is_documented(document: Document, method: str, path: str) -> None:
    """A route has a summary, a description, and the shapes of a success and of an error."""
    operation = document["paths"][path][method]

    assert operation["summary"]
    assert operation["description"]
    assert {"4XX", "5XX"} <= operation["responses"].keys()
    assert any(status.startswith("2") for status in operation["responses"])


def test_errors_are_documented_as_problem_json(document: Document) -> None:
    """The document has no other content type for errors, and it lists the fields of an error."""
    for _, path, operation in operations(document):
        for status in ("4XX", "5XX"):
            content = operation["responses"][status]["content"]

            assert content.keys() == {"application/problem+json"}, path
            schema = content["application/problem+json"]["schema"]
            shape = resolved(document, schema["$ref"]) if "$ref" in schema else schema
            assert {"type", "title", "status", "detail", "errors"} <= shape["properties"].keys()


def test_statuses_and_schemas_of_answers_are_documented(document: Document) -> None:
    """Jobs get 202, validation and predictions 200, each with a schema; trials come as JSON and CSV."""
    responses = {(method, path): operation["responses"] for method, path, operation in operations(document)}

    for path in ("/jobs/predict", "/jobs/{job_id}/cancel"):
        assert "202" in responses["post", path]
        assert "200" not in responses["post", path]
    for path in ("/jobs/tune", "/jobs/train"):
        schemas = {status: list(references(responses["post", path][status])) for status in ("202", "200")}
        assert schemas == {"202": ["#/components/schemas/JobDetail"], "200": ["#/components/schemas/Validated"]}
    assert "200" in responses["post", "/predict"]
    assert responses["get", "/jobs/{job_id}/trials"]["200"]["content"].keys() == {"application/json", "text/csv"}


def test_the_examples_of_the_document_are_accepted(document: Document, shared_api: TestClient) -> None:
    """The example of POST /predict is a valid body."""
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]

    assert shared_api.post("/predict", json=example).status_code in (200, 404)


def test_the_documentation_page_is_served(shared_api: TestClient) -> None:
    """The page at /docs shows the OpenAPI document."""
    response = shared_api.get("/docs")

    assert response.status_code == 200
    assert "openapi.json" in response.text


# --- unexpected bodies

VALID: dict[str, dict[str, Any]] = {
    "/jobs/tune": {
        "model": "mlp",
        "dataset": "mnist",
        "split": "random",
        "loss": "mse",
        "search_space": {
            "batch_size": {"type": "int", "low": 3, "high": 100, "step": 1, "log": False},
            "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
            "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
            "hidden_sizes": {
                "type": "list",
                "length": {"type": "int", "low": 2, "high": 4},
                "items": {"type": "categorical", "choices": [64, 128]},
            },
            "momentum": 0.5,
        },
        "sampler": {"name": "tpe", "n_startup_trials": 5},
        "pruner": {"name": "median", "n_startup_trials": 2, "n_warmup_epochs": 1},
        "early_stopping": {"patience": 2, "min_delta": 0.001, "rule": "best"},
        "budget": {"trials": 20, "seconds": 60.5, "epochs": 3},
        "objective": "val_loss",
        "seed": 7,
    },
    "/jobs/train": {
        "model": "mlp",
        "params": {"batch_size": 4, "learning_rate": 5e-5, "optimizer": "adam", "hidden_sizes": [64, 32], "epochs": 2},
        "early_stopping": {"patience": 2},
        "budget": {"seconds": 60, "epochs": 3},
        "seed": 7,
    },
    "/jobs/predict": {"model": "shallow", "dataset": "mnist", "version": 1, "subset": "test", "canonical": True},
    "/predict": {"model": "shallow", "dataset": "mnist", "pixels": [0, 0.5, 1, 255] * 196, "scale": 255},
}
TEXTS = [
    "",
    "tpe",
    "grid",
    "int",
    "list",
    "model",
    "type",
    "name",
    "bool",
    "mlp",
    "digits",
    "\0",
    "\ud800",
    "a/b~",
    "é😀",
]
NUMBERS = [0, 1, -1, 2, 255, 256, 0.5, -0.0, 1e-320, 1e308, -1e308, 2**31, 2**53, 2**63, 2**64, 10**400, -(10**400)]
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(st.characters(codec=None), max_size=20),
    st.sampled_from([*TEXTS, *NUMBERS]),
    st.sampled_from([[], {}, [[]], [None], [1, "a", None], {"type": "int"}, {"name": "tpe"}, {"": {}}, ["x" * 5000]]),
    st.recursive(
        st.integers() | st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    ),
)
KEYS = st.sampled_from([*TEXTS, "low", "high", "step", "log", "choices", "values", "length", "items", "batch_size"])


def keys(container: Any) -> list[Any]:
    """Return the keys of a part of a body; a leaf has none."""
    if isinstance(container, dict):
        return list(container)
    return list(range(len(container))) if isinstance(container, list) else []


@st.composite
def mutated(draw: st.DrawFn, valid: dict[str, Any]) -> dict[str, Any]:
    """Return a valid body, whole or minimal, with one to three parts replaced, removed or added."""
    least = {name: valid[name] for name in ("model", "pixels") if name in valid}
    body: dict[str, Any] = copy.deepcopy(draw(st.sampled_from([valid, least])))
    for _ in range(draw(st.integers(1, 3))):
        container: Any = body
        while True:
            key = draw(st.sampled_from(keys(container) or [None]))
            if key is None or not keys(container[key]) or draw(st.booleans()):
                break
            container = container[key]
        change = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if key is not None and change == "replace":
            container[key] = copy.deepcopy(draw(ODD))
        elif key is not None and change == "remove":
            del container[key]
        elif isinstance(container, dict):
            container[draw(KEYS | st.text(max_size=5))] = copy.deepcopy(draw(ODD))
    return body


def holds(api: TestClient, path: str, sent: Any) -> None:
    """Check that an answer is a success or an error in our words, always JSON, and never a server error."""
    response = send(api, path, sent)
    kind = response.headers["content-type"]

    assert response.status_code < 500, response.text
    assert isinstance(json.loads(response.content), dict)
    assert kind == ("application/json" if response.is_success else "application/problem+json")
    assert response.status_code in (200, 202, 400, 404, 422)
    assert response.is_success or (len(response.content) < 10_000 and not RAW.search(response.text))


@pytest.fixture(scope="module")
def predicting(shared_api: TestClient, shared_work: Work, shared_artifacts: Path) -> TestClient:
    """Return the module's API with a published version."""
    publish(shared_work, shared_artifacts, "shallow")
    return shared_api


@given(sent=mutated(VALID["/jobs/tune"]))
@settings(max_examples=300, deadline=None)
def test_no_tuning_job_makes_the_server_fail(predicting: TestClient, sent: Any) -> None:
    """A valid job with any of its parts changed is accepted or refused."""
    holds(predicting, "/jobs/tune", sent)


@given(sent=mutated(VALID["/jobs/train"]))
@settings(max_examples=300, deadline=None)
def test_no_training_job_makes_the_server_fail(predicting: TestClient, sent: Any) -> None:
    """A valid job with any of its parts changed is accepted or refused."""
    holds(predicting, "/jobs/train", sent)


@given(sent=mutated(VALID["/jobs/predict"]))
@settings(max_examples=300, deadline=None)
def test_no_predict_job_makes_the_server_fail(predicting: TestClient, sent: Any) -> None:
    """A valid job with any of its parts changed is accepted or refused."""
    holds(predicting, "/jobs/predict", sent)


@given(sent=mutated(VALID["/predict"]))
@settings(max_examples=300, deadline=None)
def test_no_image_makes_the_server_fail(predicting: TestClient, sent: Any) -> None:
    """A valid request with any of its parts changed is answered or refused."""
    holds(predicting, "/predict", sent)


@pytest.mark.parametrize("path", VALID)
def test_the_unmutated_bodies_are_accepted(predicting: TestClient, path: str) -> None:
    """The bodies above are valid."""
    response = send(predicting, path, VALID[path])

    assert response.status_code in (200, 202), response.text
