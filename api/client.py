"""A client of the HTTP API, which the `chiffre` command uses: `Chiffre("http://127.0.0.1:8000")`."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, Self
from urllib.parse import quote

import httpx2

from ml.errors import ChiffreError

DEFAULT_URL = "http://127.0.0.1:8000"
FINAL = ("completed", "failed", "cancelled")
SILENCE_SECONDS = 45  # a stream that is silent for three of its pings is broken
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts to reach an API that has gone away
AWAY_SECONDS = 300.0  # how long it may be away
AWAY = (None, 502, 503, 504)  # what is answered while it is: nothing, or something by a proxy or an API that starts


class ApiError(ChiffreError):
    """An answer that is an error, or none at all."""

    def __init__(self, message: str, status: int | None = None) -> None:
        self.status = status
        super().__init__(message)


class Chiffre:
    """One API, by its URL; by default the one that CHIFFRE_URL names."""

    def __init__(self, url: str | None = None, timeout: float = 30) -> None:
        self.url = (url or os.environ.get("CHIFFRE_URL") or DEFAULT_URL).rstrip("/")
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

    def tune(self, spec: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Post a tuning job; the job. Posted again with the same key it is the same job."""
        return self._call("POST", "/jobs/tune", json=spec, headers=_once(key))

    def train(self, spec: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Post a training job; the job. Posted again with the same key it is the same job."""
        return self._call("POST", "/jobs/train", json=spec, headers=_once(key))

    def jobs(self, limit: int = 50) -> list[dict[str, Any]]:
        """The newest jobs."""
        items: list[dict[str, Any]] = self._call("GET", "/jobs", params={"limit": limit})["items"]
        return items

    def job(self, job_id: str) -> dict[str, Any]:
        """One job."""
        return self._call("GET", f"/jobs/{_segment(job_id)}")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job; the job."""
        return self._call("POST", f"/jobs/{_segment(job_id)}/cancel")

    def pause(self, job_id: str) -> dict[str, Any]:
        """Let nothing of a job be worked on until it is resumed; the job."""
        return self._call("POST", f"/jobs/{_segment(job_id)}/pause")

    def resume(self, job_id: str) -> dict[str, Any]:
        """Let a paused job go on; the job."""
        return self._call("POST", f"/jobs/{_segment(job_id)}/resume")

    def extend(self, job_id: str, **limits: float | None) -> dict[str, Any]:
        """Change a job's limits, `trials` or `seconds`; a completed one goes on where they allow it. The job."""
        return self._call("PATCH", f"/jobs/{_segment(job_id)}", json={"budget": limits})

    def enqueue(self, job_id: str, params: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Try a configuration; the trial."""
        path = f"/jobs/{_segment(job_id)}/trials"
        return self._call("POST", path, json={"params": params}, headers=_once(key))

    def cancel_trial(self, job_id: str, number: int) -> dict[str, Any]:
        """End one trial; the trial."""
        return self._call("POST", f"/jobs/{_segment(job_id)}/trials/{number}/cancel")

    def retry(self, job_id: str, number: int) -> dict[str, Any]:
        """Run a failed trial again; the trial."""
        return self._call("POST", f"/jobs/{_segment(job_id)}/trials/{number}/retry")

    def trials(self, job_id: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All trials of a job, page by page."""
        cursor: str | None = None
        while True:
            params = {name: value for name, value in {**query, "cursor": cursor}.items() if value is not None}
            page = self._call("GET", f"/jobs/{_segment(job_id)}/trials", params=params)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def trial(self, job_id: str, number: int) -> dict[str, Any]:
        """One trial with all its measurements."""
        return self._call("GET", f"/jobs/{_segment(job_id)}/trials/{number}")

    def follow(self, job_id: str, every: float = 0.5) -> Iterator[dict[str, Any]]:
        """The job now and then, until it has ended."""
        while True:
            job = self.job(job_id)
            yield job
            if job["state"] in FINAL:
                return
            sleep(every)

    def events(self, job_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """What happened to a job after an event, and what happens until it has ended: `id`, `event` and `data` of each.

        Where the connection breaks it is made again, and goes on after the last event.
        """
        path, absence = f"/jobs/{_segment(job_id)}/events", _Absence()
        while True:
            try:
                with self._listening(path, after) as source:
                    if source is None:
                        return
                    absence.end()
                    for sent in source:
                        event = _event(sent)
                        after = event["id"]
                        absence.forget()
                        yield event
            except ApiError as error:
                absence.begin(error)
            absence.wait()

    def models(self) -> list[dict[str, Any]]:
        """Every network with a published version."""
        items: list[dict[str, Any]] = self._call("GET", "/models")["items"]
        return items

    def model(self, name: str) -> dict[str, Any]:
        """One network's versions."""
        return self._call("GET", f"/models/{_segment(name)}")

    def predict(self, pixels: list[float], **options: Any) -> dict[str, Any]:
        """What an image of 784 pixels shows."""
        chosen = {name: value for name, value in options.items() if value is not None}
        return self._call("POST", "/predict", json={"pixels": pixels, **chosen})

    def _call(self, method: str, path: str, **arguments: Any) -> dict[str, Any]:
        with self._in_words():
            response = self._http.request(method, path, **arguments)
        return self._answer(response)

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
        except httpx2.TransportError as error:
            hint = "is it running? `chiffre up` starts it, CHIFFRE_URL names another"
            raise ApiError(f"{self.url} does not answer ({error}); {hint}") from error
        except (httpx2.InvalidURL, ValueError, RecursionError) as error:
            raise ApiError(f"this cannot be sent: {str(error)[:200]}") from error

    def _answer(self, response: httpx2.Response) -> dict[str, Any]:
        """What an answer holds; ApiError where that is a problem."""
        try:
            body = response.json()
        except ValueError:
            raise ApiError(f"{self.url} answered {response.status_code}, and not as Chiffre does") from None
        if response.is_error:
            raise ApiError(_text(body), response.status_code)
        answer: dict[str, Any] = body
        return answer


class _Absence:
    """How long an API that streamed has been away, and how long to wait until it is asked again."""

    def __init__(self) -> None:
        self._known = False  # whether it ever streamed
        self._since: float | None = None
        self._pause = FIRST_PAUSE

    def begin(self, error: ApiError) -> None:
        """It is away; raises the error where waiting is of no use, or was not for too long."""
        self._since = self._since or monotonic()
        if not self._known or error.status not in AWAY or monotonic() - self._since > AWAY_SECONDS:
            raise error

    def end(self) -> None:
        """It streams."""
        self._known, self._since = True, None

    def forget(self) -> None:
        """It is as if it had never been away."""
        self._pause = FIRST_PAUSE

    def wait(self) -> None:
        """Wait before it is asked again, the longer the oftener."""
        sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def _event(sent: httpx2.ServerSentEvent) -> dict[str, Any]:
    try:
        return {"id": int(sent.id), "event": sent.event, "data": json.loads(sent.data)}
    except ValueError:
        raise ApiError(f"event {sent.id[:20]!r} is none of Chiffre's", 200) from None


def _once(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}


def _segment(name: str) -> str:
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
    lines += [f"  {error['pointer']}: {error['detail']}" for error in problem.get("errors", [])]
    return "\n".join(lines)
