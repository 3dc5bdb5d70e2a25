"""Errors as HTTP: `application/problem+json` (RFC 9457), made in one place."""

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy.exc import OperationalError, TimeoutError
from starlette.exceptions import HTTPException

from ml.errors import ChiffreError, SpecError, UnknownName
from worker.errors import NotFound

MAX_ERRORS = 20  # 784 bad pixels are one mistake, not 784

log = structlog.get_logger()


class BadInput(ChiffreError):
    """An input that fits the schema and yet cannot be used; `pointer` names it."""

    def __init__(self, pointer: str, detail: str) -> None:
        self.pointer, self.detail = pointer, detail
        super().__init__(detail)


class FieldError(BaseModel):
    """One thing wrong with a request."""

    pointer: str  # "#/…" into the body, "?name" in the query, "/name" in the path
    detail: str


class ProblemDetails(BaseModel):
    """What every error answer holds."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] = []


STATUS: dict[type[Exception], int] = {
    SpecError: 422,
    BadInput: 422,
    UnknownName: 404,
    NotFound: 404,
    HTTPException: 0,  # its own
    RequestValidationError: 422,
    OperationalError: 503,
    TimeoutError: 503,
    Exception: 500,
}

# What the OpenAPI document says of every route.
_PROBLEM = {
    "description": "What is wrong, where, and what to do",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
}
RESPONSES: dict[int | str, dict[str, Any]] = {"4XX": _PROBLEM, "5XX": _PROBLEM}


def problem(
    status: int, detail: str, errors: Iterable[FieldError] = (), headers: dict[str, str] | None = None
) -> JSONResponse:
    """The answer for an error."""
    body = ProblemDetails(
        title=HTTPStatus(status).phrase, status=status, detail=detail, errors=list(errors)[:MAX_ERRORS]
    )
    return JSONResponse(body.model_dump(), status, headers, media_type="application/problem+json")


def add_handlers(app: FastAPI) -> None:
    """Let every error of `app` be answered as problem+json."""
    handlers: dict[type[Exception], Callable[[Request, Any], JSONResponse]] = {
        SpecError: _spec_error,
        BadInput: lambda request, error: _invalid([FieldError(pointer=error.pointer, detail=error.detail)]),
        RequestValidationError: _validation_error,
        HTTPException: _http_error,
        OperationalError: _database_away,
        TimeoutError: _database_away,
        Exception: _unforeseen,
    }
    for kind, status in STATUS.items():
        app.add_exception_handler(kind, handlers.get(kind) or _plain(status))


def document_problems(app: FastAPI) -> None:
    """Put the schema that RESPONSES refers to into the OpenAPI document."""
    document = app.openapi

    def documented() -> dict[str, Any]:
        whole = document()
        schema = ProblemDetails.model_json_schema(ref_template="#/components/schemas/{model}")
        whole["components"]["schemas"] |= {**schema.pop("$defs"), "ProblemDetails": schema}
        return whole

    app.openapi = documented  # type: ignore[method-assign]


def _plain(status: int) -> Callable[[Request, Exception], JSONResponse]:
    return lambda request, error: problem(status, str(error))


def _invalid(errors: list[FieldError]) -> JSONResponse:
    return problem(422, "the request cannot be used as it is; see errors", errors)


def _spec_error(request: Request, error: SpecError) -> JSONResponse:
    return _invalid([FieldError(pointer=_body_pointer(p.path), detail=p.detail) for p in error.problems])


def _validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    of_body = all(e["loc"][0] == "body" for e in error.errors())
    if of_body and content_type != "application/json":
        return problem(415, "the content type is not application/json; send JSON with that content type")
    return _invalid([_field_error(e, error.body) for e in error.errors()[:MAX_ERRORS]])


def _field_error(error: dict[str, Any], body: Any) -> FieldError:
    where, *path = error["loc"]
    detail = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "json_invalid":
        return FieldError(pointer="#", detail=f"not valid JSON: {error.get('ctx', {}).get('error', detail)}")
    if where == "body":
        return FieldError(pointer=_body_pointer(_without_tags(path, body)), detail=detail)
    return FieldError(pointer=f"{'?' if where == 'query' else '/'}{'/'.join(map(str, path))}", detail=detail)


def _without_tags(path: list[str | int], body: Any) -> list[str | int]:
    """A pydantic location as keys that the body has, and at most one more: where something is missing.

    Pydantic puts the branches of unions into its locations; those are no keys of the body.
    """
    kept: list[str | int] = []
    for position, key in enumerate(path):
        last = position == len(path) - 1
        if _holds(body, key):
            body = body[key]
        elif not isinstance(body, dict) or not last or _is_tag(key, body):
            continue
        kept.append(key)
    return kept


def _holds(body: Any, key: str | int) -> bool:
    if isinstance(body, list):
        return isinstance(key, int) and key < len(body)
    return isinstance(body, dict) and key in body


def _is_tag(key: str | int, body: dict[str, Any]) -> bool:
    return key in (body.get("type"), body.get("name"))


def _body_pointer(path: Iterable[str | int]) -> str:
    texts = [str(key)[:60].encode(errors="replace").decode() for key in path]
    escaped = [text.replace("~", "~0").replace("/", "~1") for text in texts]
    return "/".join(["#", *escaped])


def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    detail = error.detail
    if error.status_code == 404 and detail == "Not Found":
        detail = "there is nothing at this path; /docs lists what there is"
    if error.status_code == 413:
        detail = "the body is larger than CHIFFRE_MAX_BODY_BYTES allows"
    if error.status_code == 405:
        detail = f"{request.method} is not allowed here; /docs lists what is"
    return problem(error.status_code, detail, headers=dict(error.headers or {}))


def _database_away(request: Request, error: Exception) -> JSONResponse:
    log.warning("database away", error=str(error))
    return problem(503, "the database does not answer; try again shortly", headers={"Retry-After": "2"})


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    log.error("unforeseen error", path=request.url.path, exc_info=error)
    return problem(500, "an error that nobody foresaw; the API's log says more. Please report it")
