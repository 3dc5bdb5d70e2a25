"""A client that remembers the accepted jobs and the answer to every request."""

import json
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Self

import httpx2
from acceptance.faults.waiting import PATIENCE, until

from api.client import FINAL


@dataclass(frozen=True)
class Answer:
    """The answer to a request."""

    request: str  # method and path
    status: int
    retry_after: str | None
    seconds: float = 0.0  # between the request and the answer


@dataclass
class Witness:
    """One user of an API, who posts a job again until it is accepted."""

    url: str
    accepted: list[str] = field(default_factory=list)  # ids of jobs
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._http = httpx2.Client(base_url=self.url, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, body: Any = None) -> httpx2.Response | None:
        """Send a request once, record its answer and return it; None if there was no answer."""
        sent = monotonic()
        try:
            response = self._http.request(method, path, json=body)
        except httpx2.TransportError:
            return None
        retry_after = response.headers.get("retry-after")
        self.answers.append(Answer(f"{method} {path}", response.status_code, retry_after, monotonic() - sent))
        return response

    def offer(self, spec: dict[str, Any]) -> str | None:
        """Post a tuning job once, and return its id; None if it was not accepted."""
        response = self.ask("POST", "/jobs/tune", spec)
        if response is None or response.status_code != 202:
            return None
        job_id = str(response.json()["id"])
        self.accepted.append(job_id)
        return job_id

    def post(self, spec: dict[str, Any]) -> str:
        """Post a tuning job until it is accepted, and return its id."""
        until(lambda: self.offer(spec), "a job is accepted")
        return self.accepted[-1]

    def cancel(self, job_id: str) -> None:
        """Cancel a job, once."""
        self.ask("POST", f"/jobs/{job_id}/cancel")

    def resume(self, job_id: str) -> None:
        """Send a request to resume a job until it is answered."""
        until(lambda: self.ask("POST", f"/jobs/{job_id}/resume"), "a request to resume is answered")

    def get(self, path: str) -> Any:
        """Return the JSON at a path, None if there was no answer or an error; a NaN in it raises AssertionError."""
        response = self.ask("GET", path)
        return None if response is None or response.is_error else json.loads(response.text, parse_constant=_refuse)

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job, or an empty dict if there was no answer."""
        return self.get(f"/jobs/{job_id}") or {}

    def trials(self, job_id: str) -> list[dict[str, Any]]:
        """Return the trials of a job, up to 100."""
        return list((self.get(f"/jobs/{job_id}/trials") or {"items": []})["items"])

    def until_all_ended(self, seconds: float = PATIENCE) -> None:
        """Wait until every accepted job has ended, for each up to `seconds` after the end of the previous one."""
        for job_id in self.accepted:
            until(partial(self._ended, job_id), f"accepted job {job_id} has ended", seconds)

    def _ended(self, job_id: str) -> bool:
        return self.job(job_id).get("state") in FINAL


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
