"""The form of an error answer: `application/problem+json` (RFC 9457)."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

MAX_ERRORS = 20  # 784 bad pixels are one mistake, not 784


class FieldError(BaseModel):
    """One thing wrong with a request."""

    pointer: str  # "#/…" into the body, "?name" in the query, "/name" in the path, a header by its name
    detail: str


class ProblemDetails(BaseModel):
    """The body of every error answer."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


# For every route in the OpenAPI document.
_PROBLEM = {
    "description": "What is wrong, where, and what to do",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
}
RESPONSES: dict[int | str, dict[str, Any]] = {"4XX": _PROBLEM, "5XX": _PROBLEM}


def problem(
    status: int, detail: str, errors: Iterable[FieldError] = (), headers: dict[str, str] | None = None
) -> JSONResponse:
    """Return the answer for an error."""
    body = ProblemDetails(
        title=HTTPStatus(status).phrase, status=status, detail=detail, errors=list(errors)[:MAX_ERRORS]
    )
    return JSONResponse(body.model_dump(), status, headers, media_type="application/problem+json")


def document_problems(app: FastAPI) -> None:
    """Add the schema that RESPONSES refers to to the OpenAPI document."""
    document = app.openapi

    def documented() -> dict[str, Any]:
        whole = document()
        schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
        whole["components"]["schemas"] |= {**schema.pop("$defs"), "ProblemDetails": schema}
        return whole

    app.openapi = documented  # type: ignore[method-assign]
