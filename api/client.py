"""A client of the HTTP API, also for the `chiffre` command: `Chiffre("http://127.0.0.1:8000")`."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any

import httpx2

from api.connection import ApiError, Connection, MissingMember, segment

DEFAULT_URL = "http://127.0.0.1:8000"
REPORT_SECONDS = 180.0  # a report is made on request, after reports that were requested earlier
FINAL = ("completed", "failed", "cancelled")
CLASSIFIES = ("predict", "evaluate")  # kinds of jobs that have a result instead of trials
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts to reach an API that is away
AWAY_SECONDS = 300.0  # how long it may be away
AWAY = (None, 502, 503, 504)  # the status meanwhile: no answer, or one from a proxy or a starting API


class Chiffre(Connection):
    """A client of one API, by default the API that CHIFFRE_URL names."""

    def __init__(self, url: str | None = None, timeout: float = 30) -> None:
        super().__init__(url or os.environ.get("CHIFFRE_URL") or DEFAULT_URL, timeout)

    def tune(self, spec: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Post a tuning job and return it; posting it again with the same key returns the same job."""
        return self._call("POST", "/jobs/tune", json=spec, headers=_idempotency(key))

    def train(self, spec: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Post a training job and return it; posting it again with the same key returns the same job."""
        return self._call("POST", "/jobs/train", json=spec, headers=_idempotency(key))

    def validate(self, spec: dict[str, Any], kind: str = "tune") -> dict[str, Any]:
        """Return the job that a specification would make and an estimate of its duration, without posting it.

        Args:
            spec: the specification.
            kind: `tune` or `train`.
        """
        return self._call("POST", f"/jobs/{segment(kind)}", json=spec, params={"validate_only": "true"})

    def experiments(self) -> dict[str, Any]:
        """Return the collections of experiments that can be posted, and the groups that were posted."""
        return self._call("GET", "/jobs/experiments")

    def post_experiments(self, collection: str, key: str | None = None, **options: Any) -> dict[str, Any]:
        """Post a collection of experiments and return the group; the same key returns the same group."""
        body = {"collection": collection, **_given(options)}
        return self._call("POST", "/jobs/experiments", json=body, headers=_idempotency(key))

    def group(self, group_id: str) -> dict[str, Any]:
        """Return a group of experiments."""
        return self._call("GET", f"/jobs/experiments/{segment(group_id)}")

    def predict_all(self, model: str, key: str | None = None, **options: Any) -> dict[str, Any]:
        """Post a job that classifies a subset of a data set, and return it; the same key returns the same job."""
        return self._call("POST", "/jobs/predict", json={"model": model, **_given(options)}, headers=_idempotency(key))

    def predict_file(
        self, content: bytes, kind: str, model: str, key: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Post a job that classifies the images of a file, of content type `kind`, and return it."""
        headers = {**_idempotency(key), "Content-Type": kind}
        query = _given({"model": model, **options})
        return self._call("POST", "/jobs/predict", content=content, params=query, headers=headers)

    def evaluate(self, model: str, version: int, dataset: str, key: str | None = None, **how: Any) -> dict[str, Any]:
        """Post a job that evaluates a version on another data set, and return it."""
        body = {"model": model, "version": version, "dataset": dataset, **_given(how)}
        return self._call("POST", "/jobs/evaluate", json=body, headers=_idempotency(key))

    def datasets(self) -> list[dict[str, Any]]:
        """Return every data set in its newest version."""
        items: list[dict[str, Any]] = self._call("GET", "/datasets")["items"]
        return items

    def dataset(self, name: str, version: int) -> dict[str, Any]:
        """Return a version of an uploaded data set."""
        return self._call("GET", f"/datasets/{segment(name)}/versions/{version}")

    def data(self, name: str, version: int) -> bytes:
        """Return the images and labels of a version of an uploaded data set, as safetensors.

        Raises:
            ApiError: if the file did not arrive intact.
        """
        return self._verified(f"/datasets/{segment(name)}/versions/{version}/data", "application/octet-stream")

    def add_dataset(self, name: str, archive: bytes, **how: Any) -> dict[str, Any]:
        """Upload a data set, a zip archive of images and labels, and return its version."""
        headers = {"Content-Type": "application/zip"}
        return self._call("POST", "/datasets", content=archive, params=_given({"name": name, **how}), headers=headers)

    def predictions(self, job_id: str) -> bytes:
        """Return the predictions of a job, one JSON object per line.

        Raises:
            ApiError: if the file did not arrive intact.
        """
        return self._verified(f"/jobs/{segment(job_id)}/predictions", "application/jsonl")

    def report(self, job_id: str, language: str = "en") -> str:
        """Return a job's report, as HTML."""
        return self._report(f"/jobs/{segment(job_id)}", language)

    def group_report(self, group_id: str, language: str = "en") -> str:
        """Return one report of all experiments of a group, as HTML."""
        return self._report(f"/jobs/experiments/{segment(group_id)}", language)

    def jobs(self, limit: int = 50) -> list[dict[str, Any]]:
        """Return the newest jobs."""
        items: list[dict[str, Any]] = self._call("GET", "/jobs", params={"limit": limit})["items"]
        return items

    def job(self, job_id: str) -> dict[str, Any]:
        """Return a job."""
        return self._call("GET", f"/jobs/{segment(job_id)}")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job, and return it."""
        return self._call("POST", f"/jobs/{segment(job_id)}/cancel")

    def pause(self, job_id: str) -> dict[str, Any]:
        """Pause a job until it is resumed, and return it."""
        return self._call("POST", f"/jobs/{segment(job_id)}/pause")

    def resume(self, job_id: str) -> dict[str, Any]:
        """Resume a paused job, and return it."""
        return self._call("POST", f"/jobs/{segment(job_id)}/resume")

    def extend(self, job_id: str, **limits: float | None) -> dict[str, Any]:
        """Change a job's limits, `trials` or `seconds`, and return it; a raised limit restarts a completed job."""
        return self._call("PATCH", f"/jobs/{segment(job_id)}", json={"budget": limits})

    def enqueue(self, job_id: str, params: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Queue a configuration as a trial of a job, and return the trial."""
        path = f"/jobs/{segment(job_id)}/trials"
        return self._call("POST", path, json={"params": params}, headers=_idempotency(key))

    def cancel_trial(self, job_id: str, number: int) -> dict[str, Any]:
        """Cancel a trial, and return it."""
        return self._call("POST", f"/jobs/{segment(job_id)}/trials/{number}/cancel")

    def retry(self, job_id: str, number: int) -> dict[str, Any]:
        """Run a failed trial again, and return it."""
        return self._call("POST", f"/jobs/{segment(job_id)}/trials/{number}/retry")

    def trials(self, job_id: str, **query: Any) -> Iterator[dict[str, Any]]:
        """Yield all trials of a job, page by page."""
        return self._pages(f"/jobs/{segment(job_id)}/trials", query)

    def trial(self, job_id: str, number: int) -> dict[str, Any]:
        """Return a trial with all its measurements."""
        return self._call("GET", f"/jobs/{segment(job_id)}/trials/{number}")

    def table(self, job_id: str) -> str:
        """Return the trials of a job as CSV, one row per trial."""
        return self._fetch(f"/jobs/{segment(job_id)}/trials", "text/csv").text

    def curves(self, job_id: str) -> list[dict[str, Any]]:
        """Return the learning curves of all trials of a job."""
        items: list[dict[str, Any]] = self._call("GET", f"/jobs/{segment(job_id)}/curves")["curves"]
        return items

    def follow(self, job_id: str, every: float = 0.5) -> Iterator[dict[str, Any]]:
        """Yield the job every `every` seconds until it has ended; if the API is away for a while, wait for it."""
        return _until_ended(lambda: self.job(job_id), every)

    def follow_group(self, group_id: str, every: float = 1.0) -> Iterator[dict[str, Any]]:
        """Yield a group of experiments every `every` seconds until all have ended; wait for the API like `follow`."""
        return _until_ended(lambda: self.group(group_id), every)

    def events(self, job_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """Yield the events of a job until it has ended, each with `id`, `event` and `data`.

        If the connection breaks, it is made again and continues after the last event.

        Args:
            job_id: the job.
            after: the id of the event after which to begin; 0 for all.
        """
        path, absence = f"/jobs/{segment(job_id)}/events", _Absence()
        while True:
            try:
                with self._listening(path, after) as source:
                    if source is None:
                        return
                    absence.end()
                    for received in source:
                        event = _event(received)
                        after = event["id"]
                        absence.forget()
                        yield event
            except ApiError as error:
                absence.begin(error)
            absence.wait()

    def models(self) -> list[dict[str, Any]]:
        """Return every network with a published version."""
        items: list[dict[str, Any]] = self._call("GET", "/models")["items"]
        return items

    def model(self, name: str) -> dict[str, Any]:
        """Return a network's champions and versions."""
        return self._call("GET", f"/models/{segment(name)}")

    def version(self, model: str, version: int) -> dict[str, Any]:
        """Return a version."""
        return self._call("GET", _version(model, version))

    def validation(self, model: str, version: int) -> dict[str, Any]:
        """Return a version's confusion matrix and reliability on validation images."""
        return self._call("GET", f"{_version(model, version)}/validation")

    def mistakes(self, model: str, version: int, actual: str, predicted: str) -> dict[str, Any]:
        """Return validation images of the class `actual` that a version predicted as `predicted`."""
        return self._call(
            "GET", f"{_version(model, version)}/mistakes", params={"actual": actual, "predicted": predicted}
        )

    def random_image(self, dataset: str, part: str = "test") -> dict[str, Any]:
        """Return a random image of a data set with its label."""
        return self._call("GET", f"/datasets/{segment(dataset)}/images/random", params={"part": part})

    def catalog(self) -> dict[str, Any]:
        """Return everything that a job can name: networks, data sets, samplers, pruners and more."""
        return self._call("GET", "/catalog")

    def ready(self) -> dict[str, Any]:
        """Return the champions that answer, those that fail to load, and whether the broker answers."""
        return self._call("GET", "/readyz")

    def card(self, model: str, version: int) -> str:
        """Return a version's model card, as Markdown."""
        return self._fetch(f"{_version(model, version)}/card", "text/markdown").text

    def download(self, model: str, version: int, kind: str = "checkpoint") -> bytes:
        """Return a file of a version, `checkpoint` or `onnx`.

        Raises:
            ApiError: if the file did not arrive intact.
        """
        return self._verified(f"{_version(model, version)}/{segment(kind)}", "application/octet-stream")

    def _report(self, of: str, language: str) -> str:
        return self._fetch(f"{of}/report?lang={segment(language)}", "text/html", REPORT_SECONDS).text

    def _verified(self, path: str, kind: str) -> bytes:
        """Return a file of a content type, once its SHA-256 matches its ETag."""
        response = self._fetch(path, kind)
        if response.headers.get("etag", "").strip('"') != hashlib.sha256(response.content).hexdigest():
            raise ApiError(
                f"{self.url} sent a file that does not match its ETag; try again, or check the proxies in between"
            )
        return response.content

    def promote(
        self, model: str, version: int, dataset: str | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        """Make a version the champion for the data set that it was trained on, and return the champion."""
        given = {"dataset": dataset, "reason": reason}
        promotion = {"version": version, **{name: value for name, value in given.items() if value is not None}}
        return self._call("PUT", f"/models/{segment(model)}/champion", json=promotion)

    def rollback(self, model: str, dataset: str | None = None) -> dict[str, Any]:
        """Undo the last change of a champion, and return the champion."""
        return self._call("POST", f"/models/{segment(model)}/champion/rollback", json={"dataset": dataset})

    def moves(self, model: str, dataset: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the changes of a network's champions, newest first, page by page."""
        return self._pages(f"/models/{segment(model)}/champion/moves", {"dataset": dataset})

    def predict(self, pixels: list[float], **options: Any) -> dict[str, Any]:
        """Classify an image of 784 pixels, and return the prediction."""
        return self._call("POST", "/predict", json={"pixels": pixels, **_given(options)})

    def predict_picture(self, content: bytes, kind: str = "image/png", **options: Any) -> dict[str, Any]:
        """Classify a PNG or JPEG; it is brought to the data set's own form unless `canonical` is False."""
        headers = {"Content-Type": kind}
        return self._call("POST", "/predict", content=content, params=_given(options), headers=headers)


class _Absence:
    """The absence of an API that has answered before: its duration, and the pause until the next attempt."""

    def __init__(self) -> None:
        self._known = False  # True once the API has answered
        self._since: float | None = None
        self._pause = FIRST_PAUSE

    def begin(self, error: ApiError) -> None:
        """Note that the API is away; raise the error if waiting does not help or has lasted too long."""
        self._since = self._since or monotonic()
        if not self._known or not is_away(error) or monotonic() - self._since > AWAY_SECONDS:
            raise error

    def end(self) -> None:
        """Note that the API answers."""
        self._known, self._since = True, None

    def forget(self) -> None:
        """Start again with the shortest pause."""
        self._pause = FIRST_PAUSE

    def wait(self) -> None:
        """Wait before the next attempt, with exponential backoff."""
        sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def is_away(error: ApiError) -> bool:
    """Return whether an error says that the API is away, so that another attempt may succeed."""
    return error.status in AWAY and not isinstance(error, MissingMember)


def _until_ended(look: Callable[[], dict[str, Any]], every: float) -> Iterator[dict[str, Any]]:
    """Yield what `look` returns, again and again, until its state is final."""
    absence = _Absence()
    while True:
        try:
            found = look()
        except ApiError as error:
            absence.begin(error)
            absence.wait()
            continue
        absence.end()
        absence.forget()
        yield found
        if found["state"] in FINAL:
            return
        sleep(every)


def _event(received: httpx2.ServerSentEvent) -> dict[str, Any]:
    try:
        return {"id": int(received.id), "event": received.event, "data": json.loads(received.data)}
    except ValueError:
        raise ApiError(
            f"event {received.id[:20]!r} is not one of Chiffre's; check that CHIFFRE_URL names a Chiffre API", 200
        ) from None


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _idempotency(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}


def _version(model: str, version: int) -> str:
    return f"/models/{segment(model)}/versions/{version}"
