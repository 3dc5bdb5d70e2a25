"""Helpers for the tests of the API: checked errors, and versions and trials without training."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import httpx2
import torch
from httpx2 import Response
from starlette.testclient import TestClient
from support.worker_tools import Work, measurement

from ml.artifacts import save_checkpoint, write
from ml.layers import parameter_count, to_json
from ml.network.modules import module_of
from ml.network.onnx_graph import onnx_bytes
from ml.networks import networks
from ml.parameters.params import describe
from ml.records import Checkpoint, Finished, Measured, Started, TrialState
from worker.database.tables import Job, Pack, PackPurpose, Trial
from worker.ledger.leases import Claim
from worker.publication.rows import PublicationRows, Published

JSON = {"content-type": "application/json"}
TUNE = {"model": "perceptron", "dataset": "digits", "budget": {"trials": 2}}
BLANK = [0] * 784


def body(value: Any) -> str:
    """Return a JSON body as any client may send it, with NaN, Infinity and lone surrogates."""
    return json.dumps(value, allow_nan=True)


def send(client: TestClient, path: str, value: Any) -> Response:
    """POST a JSON body, even one that httpx would refuse to send."""
    return client.post(path, content=body(value), headers=JSON)


def post(client: TestClient, kind: str = "tune", **fields: Any) -> dict[str, Any]:
    """Post a job, and return it."""
    response = client.post(f"/jobs/{kind}", json={"model": "perceptron", "dataset": "digits", **fields})
    assert response.status_code == 202, response.text
    answer: dict[str, Any] = response.json()
    return answer


RAW = re.compile(
    "Input should|should have at|should match|not permitted|Field required|Value error|Expecting|[Uu]nable to|a valid "
)


def problem(response: Response, status: int) -> dict[str, Any]:
    """Return the error document of an answer, and check that it has the right shape and our own words."""
    assert response.status_code == status, response.text[:500]
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found.keys() == {"type", "title", "status", "detail", "errors"}
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    assert len(found["errors"]) <= 20
    assert all(error.keys() == {"pointer", "detail"} and error["detail"] for error in found["errors"])
    assert not [error for error in found["errors"] if RAW.search(error["detail"])]
    return found


def pointers(response: Response, status: int = 422) -> dict[str, str]:
    """Return all errors of an answer by pointer."""
    found: dict[str, str] = {}
    for error in problem(response, status)["errors"]:
        known = found.get(error["pointer"])
        found[error["pointer"]] = error["detail"] if known is None else f"{known}; {error['detail']}"
    return found


def eventually(look: Callable[[], Any], seconds: float = 5) -> Any:
    """Call `look` until it returns a true value or time is up, and return its last value."""
    deadline = monotonic() + seconds
    while not (found := look()) and monotonic() < deadline:
        sleep(0.01)  # so that other threads of this process can run
    return found


@contextmanager
def uvicorn_process(*options: str, **environment: str) -> Iterator[str]:
    """Yield the URL of an API in a separate process, once it listens."""
    module = ["-m", "uvicorn", "--factory", "api.main:create_app", "--log-level", "warning", "--no-access-log"]
    with listening([sys.executable, *module, *options], "/livez", **environment) as url:
        yield url


@contextmanager
def listening(command: list[str], path: str, **environment: str) -> Iterator[str]:
    """Yield the URL of a process that serves on the port given by `--port`, once it answers at `path`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    whole = [*command, "--port", str(port)]
    server = subprocess.Popen(whole, env={**os.environ, **environment}, start_new_session=True)
    url = f"http://127.0.0.1:{port}"
    try:
        assert eventually(lambda: _answers(f"{url}{path}"), 60)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def pages(client: TestClient, path: str, **query: Any) -> Iterator[list[dict[str, Any]]]:
    """Yield every page of a list, by cursor."""
    cursor: str | None = None
    while True:
        params = query if cursor is None else {**query, "cursor": cursor}
        page = client.get(path, params=params)
        assert page.status_code == 200, page.text
        yield page.json()["items"]
        cursor = page.json()["next_cursor"]
        if cursor is None:
            return


@dataclass(frozen=True)
class Version:
    """A published version, and the torch module that it was made from."""

    job: Job
    module: torch.nn.Module
    checkpoint_sha256: str

    def answer(self, pixels: list[float], scale: int) -> list[float]:
        """Return torch's softmax for one image."""
        image = (torch.tensor(pixels, dtype=torch.float32) / scale).reshape(1, 1, 28, 28)
        with torch.inference_mode():
            found: list[float] = self.module(image).softmax(1)[0].tolist()
        return found


def publish(
    work: Work,
    artifacts: Path,
    model: str = "perceptron",
    value: float = 0.9,
    seed: int = 0,
    graph: bytes | None = None,
    spoil: Callable[[Path], object] = Path.exists,
    measured: dict[str, Any] | None = None,
    **fields: Any,
) -> Version:
    """Publish a version with initial weights, by the steps of worker/publication/work.py but without training.

    `graph` replaces the content of the ONNX file. `spoil` is called with the file's path before any process can read
    it. `measured` holds further fields of `Published`.
    """
    job = work.accept(**{"model": model, "dataset": "mnist", "budget": {"trials": 1}, **fields})
    dataset = work.spec(job).dataset
    layers = networks[model].layers(dataset.shape, len(dataset.classes), networks[model].params())
    module = module_of(layers, seed)
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    card = {"layers": to_json(layers), "shape": list(dataset.shape), "classes": list(dataset.classes)}
    sha256 = _win(work, artifacts, job, Checkpoint(weights, card), value)
    pack = _claimed(work, job, PackPurpose.PUBLISH)
    publishing = PublicationRows(work.database)
    winner = publishing.winner(pack)
    path = f"{job.id}/{winner.trial.number}.{pack.epoch}.onnx"
    saved = write(artifacts / path, graph if graph is not None else onnx_bytes(layers, weights, dataset.shape))
    spoil(artifacts / path)
    publishing.open_test(pack)
    reached = (0.25, round(value - 0.01, 6))
    published = Published(
        (path, saved), card["shape"], card["classes"], parameter_count(layers), *reached, **(measured or {})
    )
    publishing.publish(pack, winner, published)
    return Version(job, module, sha256)


def _win(work: Work, artifacts: Path, job: Job, checkpoint: Checkpoint, value: float) -> str:
    """Let the job's only trial reach `value` with these weights, and return the checkpoint's hash."""
    claim = _claimed(work, job, PackPurpose.TRAIN)
    (record,) = work.reserved(claim)
    params = networks[job.model].params().model_dump()
    best = measurement(1, value, loss=1 - value)
    path = f"{job.id}/{record.number}.{claim.epoch}.safetensors"
    saved = save_checkpoint(artifacts / path, checkpoint)
    started = Started(record.number, params, {}, {}, 1, 2, 0)
    finished = Finished(record.number, TrialState.COMPLETED, "all epochs", best, value, checkpoint)
    work.ledger.record(claim, [started, Measured(record.number, best, {}), finished], {record.number: (path, saved)})
    work.leases.close(claim)
    return saved.sha256


def _claimed(work: Work, job: Job, purpose: PackPurpose) -> Claim:
    claim = work.leases.claim()
    assert claim is not None
    assert (claim.job_id, claim.purpose) == (job.id, purpose)
    return claim


def insert(work: Work, job_id: str, rows: list[dict[str, Any]]) -> None:
    """Insert trials of a job as rows, without training."""
    with work.database.writing() as session:
        pack = Pack(job_id=job_id, purpose=PackPurpose.TRAIN, key="", lanes=1, done=True)
        session.add(pack)
        session.flush()
        session.add_all(Trial(job_id=job_id, pack_id=pack.id, **row) for row in rows)


def parameters(model: str) -> list[str]:
    """Return the names of a network's hyper-parameters."""
    return list(describe(networks[model].params))
