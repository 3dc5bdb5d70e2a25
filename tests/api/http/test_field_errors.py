"""Errors of fields: every message that pydantic can produce for our schemas is replaced by our own words."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

import pytest
from fastapi.dependencies.utils import get_flat_params
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import BaseModel, Field, Tag, TypeAdapter
from pydantic_core import PydanticKnownError
from pydantic_core.core_schema import ErrorType
from starlette.testclient import TestClient

from api.http.field_errors import (
    ANYTHING_ELSE,
    FORMS,
    OURS,
    PLAIN_WORDS,
    field_error,
    known_fields,
    plain_words,
    unknown_fields,
)
from api.inputs.options import Options
from api.prediction.tensors import Inference
from ml.networks import networks
from tests.api.tools import RAW

# The errors that each type of core schema produces itself.
TYPES = {
    "any": [],
    "bool": ["bool_type", "bool_parsing"],
    "default": [],
    "definition-ref": [],
    "definitions": [],
    "dict": ["dict_type", "invalid_key"],
    "enum": ["enum"],
    "float": ["float_type", "float_parsing"],
    "function-after": [],
    "function-before": [],
    "function-plain": [],
    "function-wrap": [],
    "int": ["int_type", "int_parsing", "int_parsing_size", "int_from_float"],
    "is-instance": [],  # only of our own classes, which no request contains
    "json-or-python": [],
    "list": ["list_type"],
    "literal": ["literal_error"],
    "model": ["model_type", "model_attributes_type"],
    "model-field": [],
    "model-fields": ["missing"],
    "none": ["none_required"],
    "nullable": [],
    "str": ["string_type", "string_unicode"],
    "tagged-union": [],  # our unions have their own error texts
    "tuple": ["tuple_type", "missing"],
    "union": [],
}
LENGTHS = {"str": ("string_too_short", "string_too_long"), "": ("too_short", "too_long")}
LIMITS = {"gt": "greater_than", "ge": "greater_than_equal", "lt": "less_than", "le": "less_than_equal"}
CONTEXT = {  # values for the placeholders in pydantic's messages
    "gt": 0,
    "ge": 1,
    "lt": 2.5,
    "le": 100_000,
    "multiple_of": 5,
    "field_type": "List",
    "min_length": 2,
    "max_length": 3,
    "actual_length": 5,
    "pattern": "^[0-9a-f]{64}$",
    "expected": "'a', 'b' or 'c'",
    "class_name": "Body",
}


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every core schema inside another."""
    if isinstance(schema, dict):
        if isinstance(schema.get("type"), str):
            yield schema
        for name, child in schema.items():
            if name not in ("metadata", "serialization", "expected", "default", "function"):
                yield from nodes(child)
    elif isinstance(schema, list | tuple):
        for child in schema:
            yield from nodes(child)


def errors_of(node: dict[str, Any]) -> Iterator[str]:
    """Yield the types of error that one core schema produces."""
    kind = node["type"]
    yield from TYPES[kind]
    yield from (error for limit, error in LIMITS.items() if limit in node)
    shortest, longest = LENGTHS.get(kind, LENGTHS[""])
    yield from [shortest] if "min_length" in node else []
    yield from [longest] if "max_length" in node else []
    yield from ["string_pattern_mismatch"] if "pattern" in node else []
    yield from ["multiple_of"] if "multiple_of" in node else []
    yield from ["finite_number"] if kind == "float" else []
    yield from ["extra_forbidden"] if node.get("config", {}).get("extra_fields_behavior") == "forbid" else []


def accepted(client: TestClient) -> Iterator[Any]:
    """Yield the type of every body and parameter, and of the models that the API validates itself."""
    for context in iter_route_contexts(client.app.routes):  # type: ignore[attr-defined]
        if isinstance(context.original_route, APIRoute):
            dependant = context.original_route.dependant
            for field in (*get_flat_params(dependant), *dependant.query_params, *dependant.body_params):
                yield Annotated[field.field_info.annotation, field.field_info]
    yield from (Options, Inference, *(network.params for network in networks.values()))


def test_every_error_that_our_schemas_can_produce_has_plain_words(shared_api: TestClient) -> None:
    """The test reads the possible errors from the schemas, so that a new kind of limit or type cannot be forgotten."""
    produced = {
        error
        for kind in accepted(shared_api)
        for node in nodes(TypeAdapter(kind).core_schema)
        for error in errors_of(node)
    }

    assert produced >= {"missing", "extra_forbidden", "greater_than_equal", "string_pattern_mismatch", "literal_error"}
    assert produced - PLAIN_WORDS.keys() == set()


@pytest.mark.parametrize("kind", [kind for kind in PLAIN_WORDS if kind != "json_invalid"])
def test_a_message_of_pydantic_is_replaced_completely(kind: str) -> None:
    """This holds for a message alone and inside a sentence; the table matches the installed pydantic."""
    text = PydanticKnownError(kind, CONTEXT).message()  # type: ignore[arg-type]
    ours = field_error({"type": kind, "msg": text, "loc": ()}, "#").detail

    assert re.fullmatch(PLAIN_WORDS[kind][0], text)
    assert not RAW.search(ours)
    assert "{" not in ours
    assert plain_words(f"Value error, width: {text}") == f"width: {ours}"


@pytest.mark.parametrize("kind", sorted({*get_args(ErrorType)} - {*PLAIN_WORDS, *OURS}))
def test_an_error_that_no_schema_produces_yet_is_not_shown_raw(kind: str) -> None:
    """The reader is pointed to the documentation."""
    assert field_error({"type": kind, "msg": "Input should be anything", "loc": ()}, "#").detail == ANYTHING_ELSE


def test_every_pattern_of_the_document_is_described_in_words(shared_api: TestClient) -> None:
    """A reader is never shown a regular expression."""
    found = set(re.findall(r'"pattern":("(?:[^"\\]|\\.)*")', shared_api.get("/openapi.json").text))

    assert found
    assert {TypeAdapter(str).validate_json(pattern) for pattern in found} - FORMS.keys() == set()


class Inner(BaseModel, extra="forbid"):
    """A model inside others."""

    depth: int = 0


class Other(BaseModel, extra="forbid"):
    """Another branch of a union."""

    breadth: int = 0


class Outer(BaseModel, extra="forbid"):
    """A model with every way that our schemas nest others."""

    one: Inner | None = None
    many: list[Inner] = []
    named: dict[str, Annotated[Inner, Field(description="…")]] = {}
    union: Annotated[Inner, Tag("inner")] | Annotated[Other, Tag("other")] = Inner()
    kind: Literal["a"] = "a"


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ((), list(Outer.model_fields)),
        (("one",), ["depth"]),
        (("many", 3), ["depth"]),
        (("named", "x"), ["depth"]),
        (("union", "other"), ["breadth"]),
        (("kind",), []),
        (("unknown", "more"), []),
        (("kind", 0, "more"), []),
    ],
)
def test_the_known_fields_are_those_of_the_model_at_the_path(path: tuple[str | int, ...], known: list[str]) -> None:
    """A path may lead through optional fields, lists, dicts and tagged unions; without a model no field is known."""
    assert known_fields(Outer, path) == known


def test_errors_name_unknown_and_known_fields_but_no_values() -> None:
    """At most twenty unknown fields are named."""
    found = unknown_fields({f"x{n}": "secret" for n in range(50)}, Inner.model_fields, "#/")

    assert len(found) == 20
    assert (found[0].pointer, found[0].detail) == ("#/x0", "unknown field; known fields are depth")
