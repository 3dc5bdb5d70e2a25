"""A client that remembers: which jobs were accepted, and how every request was answered."""

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
    """How a request was answered."""

    request: str  # method and path
    status: int
    retry_after: str | None
    seconds: float = 0.0  # that it took


@dataclass
class Witness:
    """One user of an API, who tries again where nobody answers."""

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
        """Send a request once and note its answer; None where there was none."""
        sent = monotonic()
        try:
            response = self._http.request(method, path, json=body)
        except httpx2.TransportError:
            return None
        retry_after = response.headers.get("retry-after")
        self.answers.append(Answer(f"{method} {path}", response.status_code, retry_after, monotonic() - sent))
        return response

    def offer(self, spec: dict[str, Any]) -> str | None:
        """Post a tuning job once; its id where it was accepted."""
        response = self.ask("POST", "/jobs/tune", spec)
        if response is None or response.status_code != 202:
            return None
        job_id = str(response.json()["id"])
        self.accepted.append(job_id)
        return job_id

    def post(self, spec: dict[str, Any]) -> str:
        """Post a tuning job until it is accepted; its id."""
        until(lambda: self.offer(spec), "a job is accepted")
        return self.accepted[-1]

    def cancel(self, job_id: str) -> None:
        """Cancel a job, once."""
        self.ask("POST", f"/jobs/{job_id}/cancel")

    def resume(self, job_id: str) -> None:
        """Resume a job until somebody answers."""
        until(lambda: self.ask("POST", f"/jobs/{job_id}/resume"), "a request to resume is answered")

    def get(self, path: str) -> Any:
        """What a path answers as strict JSON: a NaN in it is an error; None where nothing was answered."""
        response = self.ask("GET", path)
        return None if response is None or response.is_error else json.loads(response.text, parse_constant=_refuse)

    def job(self, job_id: str) -> dict[str, Any]:
        """A job, empty where nobody answered."""
        return self.get(f"/jobs/{job_id}") or {}

    def trials(self, job_id: str) -> list[dict[str, Any]]:
        """The trials of a job, up to 100."""
        return list((self.get(f"/jobs/{job_id}/trials") or {"items": []})["items"])

    def until_all_ended(self, seconds: float = PATIENCE) -> None:
        """Wait for the end of every accepted job, for each of them so long once those before it have ended."""
        for job_id in self.accepted:
            until(partial(self._ended, job_id), f"job {job_id}, which was accepted, has ended", seconds)

    def _ended(self, job_id: str) -> bool:
        return self.job(job_id).get("state") in FINAL


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")
