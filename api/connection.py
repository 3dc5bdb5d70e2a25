"""A connection to the HTTP API: requests, and what goes wrong with them in words."""

from collections.abc import Iterator
from contextlib import contextmanager
from re import sub
from typing import Any, Self
from urllib.parse import quote

import httpx2

from ml.errors import ChiffreError

# The API's texts name routes. The first pattern that fits one becomes the command that does the same.
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
    """An answer that is an error, or none at all."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class Unanswered(ApiError):
    """No answer: nothing listens there, or it fell silent."""


class NoMember(ApiError, KeyError):
    """A member that an answer does not have."""

    __str__ = Exception.__str__  # a KeyError's would put the sentence into quotes


class Answer(dict[str, Any]):
    """A JSON object of an answer; NoMember where a member is missing."""

    def __missing__(self, name: str) -> Any:
        raise NoMember(f"the answer has no {name!r}; if Chiffre's have one, another service answered")


class Connection:
    """Connections to one API."""

    def __init__(self, url: str, timeout: float) -> None:
        self.url = url.rstrip("/")
        try:
            self._http = httpx2.Client(base_url=self.url, timeout=timeout)
        except (httpx2.InvalidURL, ValueError) as error:
            raise ApiError(f"{self.url[:200]!r} is no URL ({error}); CHIFFRE_URL names the API") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        with self._in_words():
            response = self._http.request(method, path, **arguments)
        return self._answer(response)

    def _pages(self, path: str, query: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """All rows of a list, page by page."""
        cursor: str | None = None
        while True:
            params = {name: value for name, value in {**query, "cursor": cursor}.items() if value is not None}
            page = self._call("GET", path, params=params)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _fetch(self, path: str, kind: str, seconds: float | None = None) -> httpx2.Response:
        """An answer that is a file of a content type; ApiError where it is a problem or something else.

        It may take so many seconds, by default as long as any answer.
        """
        with self._in_words():
            timeout = self._http.timeout if seconds is None else seconds
            response = self._http.get(path, timeout=timeout, headers={"Accept": kind})
        if response.is_error or not response.headers.get("content-type", "").startswith(kind):
            self._answer(response)
            raise ApiError(f"{self.url} answered no {kind}, as Chiffre does", response.status_code)
        return response

    @contextmanager
    def _listening(self, path: str, after: int) -> Iterator[httpx2.EventSource | None]:
        """A stream of the events after one; None where there will be no more."""
        timeout = httpx2.Timeout(self._http.timeout.connect, read=SILENCE_SECONDS)
        headers = {"Last-Event-ID": str(after)}
        with self._in_words(), self._http.sse(path, headers=headers, timeout=timeout) as source:
            if source.response.is_error:
                source.response.read()
                self._answer(source.response)
            yield None if source.response.status_code == 204 else source

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """Let what goes wrong on the way be told in words."""
        try:
            yield
        except httpx2.SSEError as error:
            raise ApiError(f"{self.url} answered 200, and not as Chiffre does ({error})", 200) from error
        except httpx2.DecodingError as error:
            raise ApiError(f"{self.url} answered, and not as Chiffre does ({error})") from error
        except httpx2.TransportError as error:
            hint = "is it running? `chiffre up` starts it, CHIFFRE_URL names another"
            raise Unanswered(f"{self.url} does not answer ({error}); {hint}") from error
        except (httpx2.InvalidURL, ValueError, RecursionError) as error:
            raise ApiError(f"this cannot be sent: {str(error)[:200]}") from error

    def _answer(self, response: httpx2.Response) -> dict[str, Any]:
        """What an answer holds; ApiError where that is a problem."""
        try:
            body = response.json(object_hook=Answer)
        except ValueError:
            raise ApiError(f"{self.url} answered {response.status_code}, and not as Chiffre does") from None
        if response.is_error:
            raise ApiError(_text(body), response.status_code)
        if not isinstance(body, Answer):
            raise ApiError(f"{self.url} answered {response.status_code}, and not as Chiffre does")
        return body


def segment(name: str) -> str:
    """A name as one segment of a path, whatever it holds."""
    try:
        quoted = quote(name, safe="")
    except UnicodeEncodeError as error:
        raise ApiError("a name that is no text cannot be sent") from error
    if "/" in name:  # servers take %2F for a separator
        raise ApiError("a name with a / in it names nothing here", 404)
    return quoted


def _text(problem: Any) -> str:
    """A problem+json answer in words."""
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
