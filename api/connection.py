"""A connection to the HTTP API: requests, and their errors in plain words."""

from collections.abc import Iterator
from contextlib import contextmanager
from re import sub
from typing import Any, Self
from urllib.parse import quote

import httpx2

from ml.errors import ChiffreError

# The API's texts name routes. Each route that a pattern matches becomes the command that does the same.
COMMANDS = (
    (r"GET /jobs/experiments\b", "`chiffre experiments`"),
    (r"GET /jobs/(\w+)/trials\b", r"`chiffre trials \1`"),
    (r"GET /jobs(?![/?\w])", "`chiffre jobs`"),
    (r"GET /models(/\w+)?(?![/?\w])", "`chiffre models`"),
    (r"GET /datasets(/\w+)?(?![/?\w])", "`chiffre datasets`"),
    (r"POST /jobs/tune\b", "`chiffre tune`"),
    (r"POST /jobs/predict\b", "`chiffre predict-all`"),
    (r"PATCH /jobs/(\w+)", r"`chiffre extend \1`"),
    (r"PUT /models/(\w+)/champion\b", r"`chiffre promote \1`"),
)
SILENCE_SECONDS = 45  # a stream that is silent for three of its pings is broken


class ApiError(ChiffreError):
    """An error that the API answered, or the lack of an answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class Unanswered(ApiError):
    """No answer: no service listens at the URL, or it has stopped answering."""


class MissingMember(ApiError, KeyError):
    """A member that an answer lacks."""

    __str__ = Exception.__str__  # a KeyError's would put the sentence into quotes


class AnswerObject(dict[str, Any]):
    """A JSON object of an answer, which raises MissingMember for a member that it lacks."""

    def __missing__(self, name: str) -> Any:
        raise MissingMember(f"the answer has no {name!r}; check that CHIFFRE_URL names a Chiffre API")


class Connection:
    """The connections to one API."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        try:
            self._http = httpx2.Client(base_url=self.url, timeout=timeout)
        except (httpx2.InvalidURL, ValueError) as error:
            raise ApiError(f"{self.url[:200]!r} is not a URL ({error}); set CHIFFRE_URL to that of the API") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        with self._plain_errors():
            response = self._http.request(method, path, **arguments)
        return self._answer(response)

    def _pages(self, path: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield all rows of a list, page by page."""
        cursor: str | None = None
        while True:
            params = {name: value for name, value in {**query, "cursor": cursor}.items() if value is not None}
            page = self._call("GET", path, params=params)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _fetch(self, path: str, kind: str, seconds: float | None = None) -> httpx2.Response:
        """Get a file.

        Args:
            path: of the file.
            kind: its content type.
            seconds: how long the answer may take; by default as long as any answer.

        Raises:
            ApiError: if the answer is a problem or of another content type.
        """
        with self._plain_errors():
            timeout = self._http.timeout if seconds is None else seconds
            response = self._http.get(path, timeout=timeout, headers={"Accept": kind})
        if response.is_error or not response.headers.get("content-type", "").startswith(kind):
            self._answer(response)
            raise ApiError(
                f"{self.url} did not answer {kind}; check that CHIFFRE_URL names a Chiffre API", response.status_code
            )
        return response

    @contextmanager
    def _listening(self, path: str, after: int) -> Iterator[httpx2.EventSource | None]:
        """Yield the stream of events after the number `after`; None if no more will follow."""
        timeout = httpx2.Timeout(self._http.timeout.connect, read=SILENCE_SECONDS)
        headers = {"Last-Event-ID": str(after)}
        with self._plain_errors(), self._http.sse(path, headers=headers, timeout=timeout) as source:
            if source.response.is_error:
                source.response.read()
                self._answer(source.response)
            yield None if source.response.status_code == 204 else source

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn errors of the HTTP library into ApiError."""
        try:
            yield
        except httpx2.SSEError as error:
            raise ApiError(
                f"{self.url} sent no event stream ({error}); check that CHIFFRE_URL names a Chiffre API", 200
            ) from error
        except httpx2.DecodingError as error:
            raise ApiError(
                f"{self.url} sent an unreadable answer ({error}); check that CHIFFRE_URL names a Chiffre API"
            ) from error
        except httpx2.TransportError as error:
            hint = "start it with `chiffre up`, or set CHIFFRE_URL to another"
            raise Unanswered(f"{self.url} does not answer ({error}); {hint}") from error
        except (httpx2.InvalidURL, ValueError, RecursionError) as error:
            raise ApiError(f"the request cannot be sent: {str(error)[:200]}") from error

    def _answer(self, response: httpx2.Response) -> dict[str, Any]:
        """Return the JSON object of an answer.

        Raises:
            ApiError: if it is a problem, or not a JSON object.
        """
        try:
            body = response.json(object_hook=AnswerObject)
        except ValueError:
            raise self._foreign(response) from None
        if response.is_error:
            raise ApiError(_text(body), response.status_code)
        if not isinstance(body, AnswerObject):
            raise self._foreign(response)
        return body

    def _foreign(self, response: httpx2.Response) -> ApiError:
        """Return the error for an answer that another service must have given."""
        status = response.status_code
        return ApiError(
            f"{self.url} answered {status} without Chiffre's JSON; check that CHIFFRE_URL names a Chiffre API"
        )


def segment(name: str) -> str:
    """Return a name quoted as one segment of a path.

    Raises:
        ApiError: if no path can hold the name.
    """
    try:
        quoted = quote(name, safe="")
    except UnicodeEncodeError as error:
        raise ApiError("the name is not valid Unicode; use another") from error
    if "/" in name:  # servers read %2F as a separator
        raise ApiError("a name with a / does not exist; check it", 404)
    return quoted


def _text(problem: Any) -> str:
    """Return a problem+json answer as text, one line per field."""
    if not isinstance(problem, dict):
        return str(problem)[:500]
    lines = [str(problem.get("detail") or problem.get("title"))]
    errors = [error for error in problem.get("errors") or [] if isinstance(error, dict)]
    lines += [f"  {error['pointer']}: {error['detail']}" for error in errors if {"pointer", "detail"} <= error.keys()]
    return with_commands("\n".join(lines))


def with_commands(text: str) -> str:
    """Return a text with commands in place of the routes that it names."""
    for route, command in COMMANDS:
        text = sub(route, command, text)
    return text
