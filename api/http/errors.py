"""Errors as HTTP answers: the dict at the end says which exception becomes which answer."""

from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from re import fullmatch, sub
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import OperationalError, TimeoutError
from starlette.exceptions import HTTPException

from api.http.field_errors import field_error, not_json, plain_words, pointer_to, unknown_fields
from api.http.problems import MAX_ERRORS, FieldError, problem
from ml.errors import CheckpointError, ChiffreError, SpecError, UnknownName
from worker.errors import Conflict, Fact, KeyReused, NotFound, Refused, StorageAway, StorageFull

POINTER_PREFIXES = {"query": "?", "path": "/", "header": "", "cookie": ""}  # of the pointer to a parameter

# By fact: the route that helps with it. Braces take the names that the error carries.
WAYS_OUT = {
    Fact.NO_JOB: "GET /jobs lists them",
    Fact.NO_TRIAL: "GET /jobs/{job_id}/trials lists them",
    Fact.NO_GROUP: "GET /jobs/experiments lists them",
    Fact.NO_VERSION: "GET /models lists networks and versions",
    Fact.NO_CHAMPION: "GET /models lists the champions",
    Fact.NO_DATASET: "GET /datasets lists those there are",
    Fact.NOTHING_PUBLISHED: "POST /jobs/tune makes one",
    Fact.NOTHING_TO_UNDO: "PUT /models/{model}/champion promotes another version",
    Fact.OWN_IMAGES: "POST /jobs/predict classifies those that were left out of training",
    Fact.OUT_OF_TIME: "PATCH /jobs/{job_id} allows it more, then try again",
}

log = structlog.get_logger()


class BadInput(ChiffreError):
    """Invalid input; `errors` name at least one field of the input and what is wrong there."""

    def __init__(self, pointer: str, detail: str, *more: FieldError) -> None:
        self.errors = [FieldError(pointer=pointer, detail=detail), *more]
        super().__init__(detail)

    def in_one_line(self) -> str:
        """Return the first error and its place in one line, for an image of a list or a line of a file."""
        first = self.errors[0]
        return f"{first.pointer}: {first.detail}"


class Busy(ChiffreError):
    """A request beyond those that this process can answer now."""


class NotLoaded(ChiffreError):
    """A published version that cannot be loaded now."""


class NotAnalysed(ChiffreError):
    """An analysis that took too long or failed."""


class TooManyStreams(ChiffreError):
    """A stream beyond those that this process serves at once."""


class NothingMore(ChiffreError):
    """A stream whose end the client has received already; the answer 204 stops the client from connecting again."""


def _invalid(errors: list[FieldError]) -> JSONResponse:
    return problem(422, "The request is invalid; see errors.", errors)


def _bad_input(request: Request, error: BadInput) -> JSONResponse:
    return _invalid(error.errors)


def invalid(error: ValidationError, prefix: str, model: type[BaseModel] | None = None) -> BadInput:
    """Return a pydantic error as BadInput; its pointers begin with `prefix`."""
    found = error.errors(include_input=False, include_url=False)[:MAX_ERRORS]
    first, *more = (field_error(each, pointer_to(prefix, each["loc"]), model) for each in found)
    return BadInput(first.pointer, first.detail, *more)


def refuse_many(fields: Mapping[str, Any], model: type[BaseModel], prefix: str) -> None:
    """Refuse input with many fields that a model does not have.

    Pydantic would describe each of the fields, in gigabytes if a body names a million.

    Raises:
        BadInput: for the first MAX_ERRORS of them; fewer are left to pydantic.
    """
    known = model.model_fields
    if len(fields) >= MAX_ERRORS and len(unknown := unknown_fields(fields, known, prefix)) == MAX_ERRORS:
        first, *more = unknown
        raise BadInput(first.pointer, first.detail, *more)


def _not_found(request: Request, error: Exception) -> JSONResponse:
    return problem(404, _with_way_out(error))


def _conflict(request: Request, error: Conflict) -> JSONResponse:
    return problem(409, _with_way_out(error))


def _with_way_out(error: Exception) -> str:
    """Return an error's text, and the route that helps with its fact."""
    if not isinstance(error, Refused) or error.fact is None:
        return str(error)
    return f"{error}; {WAYS_OUT[error.fact].format_map(error.names)}"


def _key_reused(request: Request, error: KeyReused) -> JSONResponse:
    return _invalid([FieldError(pointer="Idempotency-Key", detail=str(error))])


def _spec_error(request: Request, error: SpecError) -> JSONResponse:
    found = [FieldError(pointer=_body_pointer(p.path), detail=plain_words(p.detail)) for p in error.problems]
    return _invalid(found)


def _validation_error(request: Request, error: RequestValidationError) -> JSONResponse:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    of_body = all(e["loc"][0] == "body" for e in error.errors())
    if of_body and content_type != "application/json":
        return problem(415, "unsupported Content-Type; send JSON as application/json")
    body_field = getattr(request.scope.get("route"), "body_field", None)
    model = None if body_field is None else body_field.field_info.annotation
    return _invalid([_field_error(each, error.body, model) for each in error.errors()[:MAX_ERRORS]])


def _field_error(error: dict[str, Any], body: Any, model: Any) -> FieldError:
    where, *path = error["loc"]
    if error["type"] == "json_invalid":
        return FieldError(pointer="#", detail=not_json(int(path[0])))
    if where == "body":
        return field_error({**error, "loc": path}, _body_pointer(_without_tags(path, body)), model)
    return field_error(error, POINTER_PREFIXES[where] + "/".join(map(str, path)))


def _without_tags(path: list[str | int], body: Any) -> list[str | int]:
    """Return a pydantic location as keys of the body, and at most one more for a missing field.

    Pydantic puts the tags of unions into its locations, and such tags are not keys of the body.
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
    keys = list(path)
    return pointer_to("#/", keys) if keys else "#"


def _http_error(request: Request, error: HTTPException) -> JSONResponse:
    detail = error.detail
    if error.status_code == 404 and detail == "Not Found":
        detail = "unknown path; /docs lists all paths"
    if error.status_code == 413 and detail == HTTPStatus(413).phrase:
        detail = "the body is larger than the limit of CHIFFRE_MAX_BODY_BYTES"
    headers = dict(error.headers or {})
    if error.status_code == 405:
        detail = f"{request.method} is not allowed here; /docs lists the methods of each path"
        headers["Allow"] = ", ".join(_methods(request))
    return problem(error.status_code, detail, headers=headers)


def _methods(request: Request) -> list[str]:
    """Return the methods that the OpenAPI document has for a path; the framework names those of one route only."""
    paths, path = request.app.openapi()["paths"], request.url.path
    found = [paths[path]] if path in paths else [paths[p] for p in paths if fullmatch(sub(r"{\w+}", "[^/]+", p), path)]
    return sorted({method.upper() for operations in found for method in operations})


def _nothing_more(request: Request, error: NothingMore) -> Response:
    return Response(status_code=204)


def _too_many_streams(request: Request, error: TooManyStreams) -> JSONResponse:
    return problem(503, str(error), headers={"Retry-After": "5"})


def _busy(request: Request, error: Busy) -> JSONResponse:
    return problem(503, str(error), headers={"Retry-After": "1"})


def _not_loaded(request: Request, error: NotLoaded) -> JSONResponse:
    return problem(503, str(error), headers={"Retry-After": "5"})


def _not_analysed(request: Request, error: NotAnalysed) -> JSONResponse:
    return problem(503, str(error), headers={"Retry-After": "30"})


def _database_away(request: Request, error: Exception) -> JSONResponse:
    log.warning("the database does not answer", error=str(error))
    return problem(503, "the database does not answer; try again shortly", headers={"Retry-After": "2"})


def _storage_away(request: Request, error: StorageAway) -> JSONResponse:
    log.warning("the storage does not answer", error=str(error))
    return problem(503, "the storage of artifacts does not answer; try again shortly", headers={"Retry-After": "5"})


def _storage_full(request: Request, error: StorageFull) -> JSONResponse:
    log.error("no room for an upload", error=str(error))
    return problem(507, "no room for the upload; ask the operator of this service to free some")


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    log.error("unexpected error", path=request.url.path, exc_info=error)
    return problem(500, "Unexpected error; the API's log has the details. Please report it.")


ANSWERS: dict[type[Exception], Callable[[Request, Any], Response]] = {
    SpecError: _spec_error,
    BadInput: _bad_input,
    UnknownName: _not_found,
    NotFound: _not_found,
    Conflict: _conflict,
    KeyReused: _key_reused,
    NothingMore: _nothing_more,
    TooManyStreams: _too_many_streams,
    Busy: _busy,
    NotLoaded: _not_loaded,
    NotAnalysed: _not_analysed,
    CheckpointError: _not_found,
    StorageAway: _storage_away,
    StorageFull: _storage_full,
    RequestValidationError: _validation_error,
    HTTPException: _http_error,
    OperationalError: _database_away,
    TimeoutError: _database_away,
    Exception: _unexpected,
}


def add_handlers(app: FastAPI) -> None:
    """Answer every error of `app` as problem+json."""
    for kind, answer in ANSWERS.items():
        app.add_exception_handler(kind, answer)


def answer_to(request: Request, error: Exception) -> Response:
    """Return the answer for an error, by the nearest of its base classes that has one."""
    kind = next(kind for kind in type(error).__mro__ if kind in ANSWERS)
    return ANSWERS[kind](request, error)
