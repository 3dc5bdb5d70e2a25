"""A client of the HTTP API, which the `chiffre` command uses: `Chiffre("http://127.0.0.1:8000")`."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from time import monotonic, sleep
from typing import Any

import httpx2

from api.connection import ApiError, Connection, NoMember, segment

DEFAULT_URL = "http://127.0.0.1:8000"
REPORT_SECONDS = 180.0  # it is made on demand, after others that were asked for before
FINAL = ("completed", "failed", "cancelled")
CLASSIFIES = ("predict", "evaluate")  # kinds of jobs that have a result instead of trials
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between attempts to reach an API that has gone away
AWAY_SECONDS = 300.0  # how long it may be away
AWAY = (None, 502, 503, 504)  # what is answered while it is: nothing, or something by a proxy or an API that starts


class Chiffre(Connection):
    """One API, by its URL; by default the one that CHIFFRE_URL names."""

    def __init__(self, url: str | None = None, timeout: float = 30) -> None:
        super().__init__(url or os.environ.get("CHIFFRE_URL") or DEFAULT_URL, timeout)

    def tune(self, spec: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Post a tuning job; the job. Posted again with the same key it is the same job."""
        return self._call("POST", "/jobs/tune", json=spec, headers=_once(key))

    def train(self, spec: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Post a training job; the job. Posted again with the same key it is the same job."""
        return self._call("POST", "/jobs/train", json=spec, headers=_once(key))

    def validate(self, spec: dict[str, Any], kind: str = "tune") -> dict[str, Any]:
        """What a job of a kind, tune or train, would be and how long it may take; nothing is posted."""
        return self._call("POST", f"/jobs/{segment(kind)}", json=spec, params={"validate_only": "true"})

    def experiments(self) -> dict[str, Any]:
        """The collections of experiments that can be posted, and the groups that were."""
        return self._call("GET", "/jobs/experiments")

    def post_experiments(self, collection: str, key: str | None = None, **options: Any) -> dict[str, Any]:
        """Post a collection of experiments; the group. Posted again with the same key it is the same group."""
        body = {"collection": collection, **_given(options)}
        return self._call("POST", "/jobs/experiments", json=body, headers=_once(key))

    def group(self, group_id: str) -> dict[str, Any]:
        """One group of experiments."""
        return self._call("GET", f"/jobs/experiments/{segment(group_id)}")

    def predict_all(self, model: str, key: str | None = None, **options: Any) -> dict[str, Any]:
        """Post a job that classifies part of a data set; the job. Posted again with the same key it is the same job."""
        return self._call("POST", "/jobs/predict", json={"model": model, **_given(options)}, headers=_once(key))

    def predict_file(
        self, content: bytes, kind: str, model: str, key: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Post a job that classifies the images of a file of a content type; the job."""
        headers = {**_once(key), "Content-Type": kind}
        query = _given({"model": model, **options})
        return self._call("POST", "/jobs/predict", content=content, params=query, headers=headers)

    def evaluate(self, model: str, version: int, dataset: str, key: str | None = None, **how: Any) -> dict[str, Any]:
        """Post a job that evaluates a version on another data set; the job."""
        asked = {"model": model, "version": version, "dataset": dataset, **_given(how)}
        return self._call("POST", "/jobs/evaluate", json=asked, headers=_once(key))

    def datasets(self) -> list[dict[str, Any]]:
        """Every data set in its newest version."""
        items: list[dict[str, Any]] = self._call("GET", "/datasets")["items"]
        return items

    def dataset(self, name: str, version: int) -> dict[str, Any]:
        """One version of a data set that somebody has uploaded."""
        return self._call("GET", f"/datasets/{segment(name)}/versions/{version}")

    def data(self, name: str, version: int) -> bytes:
        """Its images and labels as safetensors; ApiError where they did not arrive as the API has them."""
        return self._verified(f"/datasets/{segment(name)}/versions/{version}/data", "application/octet-stream")

    def add_dataset(self, name: str, archive: bytes, **how: Any) -> dict[str, Any]:
        """Upload a data set, a zip archive of images and labels; its version."""
        headers = {"Content-Type": "application/zip"}
        return self._call("POST", "/datasets", content=archive, params=_given({"name": name, **how}), headers=headers)

    def predictions(self, job_id: str) -> bytes:
        """What a predict job answered, a JSON object a line; ApiError where it did not arrive as the API has it."""
        return self._verified(f"/jobs/{segment(job_id)}/predictions", "application/jsonl")

    def report(self, job_id: str, language: str = "en") -> str:
        """A job's report, as HTML."""
        return self._report(f"/jobs/{segment(job_id)}", language)

    def group_report(self, group_id: str, language: str = "en") -> str:
        """One report of all experiments of a group, as HTML."""
        return self._report(f"/jobs/experiments/{segment(group_id)}", language)

    def jobs(self, limit: int = 50) -> list[dict[str, Any]]:
        """The newest jobs."""
        items: list[dict[str, Any]] = self._call("GET", "/jobs", params={"limit": limit})["items"]
        return items

    def job(self, job_id: str) -> dict[str, Any]:
        """One job."""
        return self._call("GET", f"/jobs/{segment(job_id)}")

    def cancel(self, job_id: str) -> dict[str, Any]:
        """Cancel a job; the job."""
        return self._call("POST", f"/jobs/{segment(job_id)}/cancel")

    def pause(self, job_id: str) -> dict[str, Any]:
        """Let nothing of a job be worked on until it is resumed; the job."""
        return self._call("POST", f"/jobs/{segment(job_id)}/pause")

    def resume(self, job_id: str) -> dict[str, Any]:
        """Let a paused job go on; the job."""
        return self._call("POST", f"/jobs/{segment(job_id)}/resume")

    def extend(self, job_id: str, **limits: float | None) -> dict[str, Any]:
        """Change a job's limits, `trials` or `seconds`; a completed one goes on where they allow it. The job."""
        return self._call("PATCH", f"/jobs/{segment(job_id)}", json={"budget": limits})

    def enqueue(self, job_id: str, params: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Try a configuration; the trial."""
        path = f"/jobs/{segment(job_id)}/trials"
        return self._call("POST", path, json={"params": params}, headers=_once(key))

    def cancel_trial(self, job_id: str, number: int) -> dict[str, Any]:
        """End one trial; the trial."""
        return self._call("POST", f"/jobs/{segment(job_id)}/trials/{number}/cancel")

    def retry(self, job_id: str, number: int) -> dict[str, Any]:
        """Run a failed trial again; the trial."""
        return self._call("POST", f"/jobs/{segment(job_id)}/trials/{number}/retry")

    def trials(self, job_id: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All trials of a job, page by page."""
        return self._pages(f"/jobs/{segment(job_id)}/trials", query)

    def trial(self, job_id: str, number: int) -> dict[str, Any]:
        """One trial with all its measurements."""
        return self._call("GET", f"/jobs/{segment(job_id)}/trials/{number}")

    def table(self, job_id: str) -> str:
        """Every trial of a job as a row of CSV."""
        return self._fetch(f"/jobs/{segment(job_id)}/trials", "text/csv").text

    def curves(self, job_id: str) -> list[dict[str, Any]]:
        """The figures of all trials of a job by epoch, by trial."""
        items: list[dict[str, Any]] = self._call("GET", f"/jobs/{segment(job_id)}/curves")["curves"]
        return items

    def follow(self, job_id: str, every: float = 0.5) -> Iterator[dict[str, Any]]:
        """The job now and then, until it has ended; where the API goes away for a while, from there on again."""
        return _until_ended(lambda: self.job(job_id), every)

    def follow_group(self, group_id: str, every: float = 1.0) -> Iterator[dict[str, Any]]:
        """A group of experiments now and then, until all have ended; as `follow` where the API goes away."""
        return _until_ended(lambda: self.group(group_id), every)

    def events(self, job_id: str, after: int = 0) -> Iterator[dict[str, Any]]:
        """What happened to a job after an event, and what happens until it has ended: `id`, `event` and `data` of each.

        Where the connection breaks it is made again, and goes on after the last event.
        """
        path, absence = f"/jobs/{segment(job_id)}/events", _Absence()
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
        """One network's champions and versions."""
        return self._call("GET", f"/models/{segment(name)}")

    def version(self, model: str, version: int) -> dict[str, Any]:
        """One version."""
        return self._call("GET", _version(model, version))

    def validation(self, model: str, version: int) -> dict[str, Any]:
        """What a version's answers for validation images came to: confusion matrix and reliability."""
        return self._call("GET", f"{_version(model, version)}/validation")

    def mistakes(self, model: str, version: int, actual: str, predicted: str) -> dict[str, Any]:
        """Validation images of one class that a version took for another."""
        return self._call(
            "GET", f"{_version(model, version)}/mistakes", params={"actual": actual, "predicted": predicted}
        )

    def random_image(self, dataset: str, part: str = "test") -> dict[str, Any]:
        """A random image of a data set with its label."""
        return self._call("GET", f"/datasets/{segment(dataset)}/images/random", params={"part": part})

    def catalog(self) -> dict[str, Any]:
        """Everything that a job can name."""
        return self._call("GET", "/catalog")

    def ready(self) -> dict[str, Any]:
        """What the API can do just now."""
        return self._call("GET", "/readyz")

    def card(self, model: str, version: int) -> str:
        """A version's card, as Markdown."""
        return self._fetch(f"{_version(model, version)}/card", "text/markdown").text

    def download(self, model: str, version: int, kind: str = "checkpoint") -> bytes:
        """A file of a version, `checkpoint` or `onnx`; ApiError where it did not arrive as the API has it."""
        return self._verified(f"{_version(model, version)}/{segment(kind)}", "application/octet-stream")

    def _report(self, of: str, language: str) -> str:
        return self._fetch(f"{of}/report?lang={segment(language)}", "text/html", REPORT_SECONDS).text

    def _verified(self, path: str, kind: str) -> bytes:
        """A file of a content type; ApiError where it is not what its ETag says."""
        response = self._fetch(path, kind)
        if response.headers.get("etag", "").strip('"') != hashlib.sha256(response.content).hexdigest():
            raise ApiError(f"{self.url} sent a file that is not what its ETag says; try again, or ask who is between")
        return response.content

    def promote(
        self, model: str, version: int, dataset: str | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        """Let a version answer for the data set that it was trained on; the champion."""
        given = {"dataset": dataset, "reason": reason}
        promotion = {"version": version, **{name: value for name, value in given.items() if value is not None}}
        return self._call("PUT", f"/models/{segment(model)}/champion", json=promotion)

    def rollback(self, model: str, dataset: str | None = None) -> dict[str, Any]:
        """Undo the last move of a champion; the champion."""
        return self._call("POST", f"/models/{segment(model)}/champion/rollback", json={"dataset": dataset})

    def moves(self, model: str, dataset: str | None = None) -> Iterator[dict[str, Any]]:
        """The moves of a network's champions, the newest first, page by page."""
        return self._pages(f"/models/{segment(model)}/champion/moves", {"dataset": dataset})

    def predict(self, pixels: list[float], **options: Any) -> dict[str, Any]:
        """What an image of 784 pixels shows."""
        return self._call("POST", "/predict", json={"pixels": pixels, **_given(options)})

    def predict_picture(self, content: bytes, kind: str = "image/png", **options: Any) -> dict[str, Any]:
        """What a PNG or JPEG shows, brought to the data set's own form unless `canonical` is False."""
        headers = {"Content-Type": kind}
        return self._call("POST", "/predict", content=content, params=_given(options), headers=headers)


class _Absence:
    """How long an API that answered has been away, and how long to wait until it is asked again."""

    def __init__(self) -> None:
        self._known = False  # whether it ever answered
        self._since: float | None = None
        self._pause = FIRST_PAUSE

    def begin(self, error: ApiError) -> None:
        """It is away; raises the error where waiting is of no use, or was not for too long."""
        self._since = self._since or monotonic()
        if not self._known or not is_away(error) or monotonic() - self._since > AWAY_SECONDS:
            raise error

    def end(self) -> None:
        """It answers."""
        self._known, self._since = True, None

    def forget(self) -> None:
        """It is as if it had never been away."""
        self._pause = FIRST_PAUSE

    def wait(self) -> None:
        """Wait before it is asked again, the longer the oftener."""
        sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)


def is_away(error: ApiError) -> bool:
    """Whether an error says that the API is away, so that asking again may be of use."""
    return error.status in AWAY and not isinstance(error, NoMember)


def _until_ended(look: Callable[[], dict[str, Any]], every: float) -> Iterator[dict[str, Any]]:
    """What a look shows, and the next ones, until it has ended."""
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


def _event(sent: httpx2.ServerSentEvent) -> dict[str, Any]:
    try:
        return {"id": int(sent.id), "event": sent.event, "data": json.loads(sent.data)}
    except ValueError:
        raise ApiError(f"event {sent.id[:20]!r} is none of Chiffre's", 200) from None


def _given(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _once(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Idempotency-Key": key}


def _version(model: str, version: int) -> str:
    return f"/models/{segment(model)}/versions/{version}"
