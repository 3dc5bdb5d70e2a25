"""A job's events arrive in order without gap or repeat, even after failures, and streams are cheap."""

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from threading import Condition, Thread, current_thread
from time import monotonic, sleep
from typing import Any

import anyio
import httpx2
import psycopg
import pytest
import uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse, Response
from fastapi.sse import EventSourceResponse
from sqlalchemy import event as listening
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlmodel import col
from starlette.testclient import TestClient
from support.worker_tools import Work, measurement

from api.client import Chiffre
from api.connection import ApiError
from api.http.signals import on_ending
from api.main import create_app
from ml.records import Finished, Measured, TrialState
from tests.api.conftest import serving
from tests.api.tools import pointers, problem, publish
from worker.database.clock import to_datetime
from worker.database.tables import Event, Job, Measurement, Trial
from worker.ledger.leases import Claim
from worker.local import free_port

ROOT = Path(__file__).parents[4]
ONCE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the test does not depend on the database
FIELDS = {
    "job": {"state", "detail", "by", "at"},
    "trial": {"number", "state", "detail", "by", "at"},
    "epoch": {"number", "epoch", "train_loss", "val_loss", "val_accuracy", "images_seen", "seconds"},
}

Told = dict[str, Any]  # an event: id, event, data


@pytest.fixture
def app(environment: Path, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """Return the API on the test's database, with a follower that looks often."""
    monkeypatch.setattr("api.views.streams.LOOK_SECONDS", 0.02)
    return create_app()


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """Yield the URL of the API, served by a real uvicorn."""
    with serving(app) as address:
        yield address


# --- jobs and their events


def path(job: Job) -> str:
    """Return the path of a job's events."""
    return f"/jobs/{job.id}/events"


def ends(work: Work, claim: Claim, *numbers: int, state: TrialState = TrialState.DIVERGED) -> None:
    """End trials without a result, and close their pack."""
    work.ledger.record(claim, [Finished(number, state, "for the test", None, None, None) for number in numbers], {})
    work.leases.close(claim)


def failed_job(work: Work) -> Job:
    """Return a job that has failed: two trials diverged, one of them measured without an accuracy."""
    job = work.accept()
    claim = work.pack(2)
    for step in (1, 2):
        work.measure(claim, 0, measurement(step, 0.5))
        work.measure(claim, 1, measurement(step, None, None))
    ends(work, claim, 0, 1)
    return job


def long_job(work: Work, epochs: int = 1500) -> Job:
    """Return an unfinished job with more events than small buffers hold."""
    job = work.accept(budget={"trials": 1})
    work.ledger.record(work.pack(1), [Measured(0, measurement(n, 0.5), {}) for n in range(1, epochs + 1)], {})
    return job


def wordy_job(work: Work) -> Job:
    """Return an unfinished job with 4 MiB of events."""
    job = work.accept(budget={"trials": 17})
    claim = work.pack(16)
    reason = "x" * 2**18
    ended = [Finished(number, TrialState.DIVERGED, reason, None, None, None) for number in range(16)]
    work.ledger.record(claim, ended, {})
    return job


def recorded(work: Work, job: Job) -> list[Told]:
    """Return all events of a job, from its rows."""
    with work.database.reading() as session:
        events = session.scalars(select(Event).where(col(Event.job_id) == job.id)).all()
        rungs = session.execute(
            select(Trial.number, Measurement)
            .join(Measurement, col(Measurement.trial_id) == Trial.id)
            .where(col(Trial.job_id) == job.id)
        ).all()
    found = [{"id": e.sequence, "event": "job" if e.trial is None else "trial", "data": transition(e)} for e in events]
    found += [{"id": rung.sequence, "event": "epoch", "data": epoch(number, rung)} for number, rung in rungs]
    return sorted(found, key=lambda one: one["id"])


def ids(work: Work, job: Job) -> list[int]:
    """Return the ids of all events of a job."""
    return [one["id"] for one in recorded(work, job)]


def transition(row: Event) -> dict[str, Any]:
    """Return the data of a transition."""
    at = to_datetime(row.at)
    assert at is not None
    number = {} if row.trial is None else {"number": row.trial}
    return {**number, "state": row.state, "detail": row.detail, "by": row.by, "at": at.isoformat()[:-6] + "Z"}


def epoch(number: int, row: Measurement) -> dict[str, Any]:
    """Return the data of a measurement."""
    plain = {name: getattr(row, name) for name in FIELDS["epoch"] - {"number", "epoch"}}
    return {"number": number, "epoch": row.step / 10, **plain}


# --- clients


def told(sent: httpx2.ServerSentEvent) -> Told:
    """Parse an event; NaN and Infinity would not be JSON."""
    return {"id": int(sent.id), "event": sent.event, "data": json.loads(sent.data, parse_constant=pytest.fail)}


def heard(client: TestClient, job: Job, query: str = "", **headers: str) -> list[Told] | None:
    """Return all events of a job that has ended; None if the answer is 204."""
    response = client.get(path(job) + query, headers=headers)
    if response.status_code == 204:
        assert response.content == b""
        return None
    assert response.status_code == 200, response.text
    return [told(sent) for sent in httpx2.EventSource(response)]


@contextmanager
def stream(url: str, job: Job, after: int = 0) -> Iterator[Iterator[Told]]:
    """Yield the events of a job over a separate connection."""
    headers = {"Last-Event-ID": str(after)}
    with (
        httpx2.Client(base_url=url, timeout=20, verify=False) as client,
        client.sse(path(job), headers=headers) as source,
    ):
        assert source.response.status_code == 200
        yield map(told, source)


@contextmanager
def deaf(port: int, job: Job) -> Iterator[socket.socket]:
    """Yield a client that requests a job's events but does not read them, with a small receive window."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        client.settimeout(20)
        client.connect(("127.0.0.1", port))
        client.sendall(f"GET {path(job)} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        yield client


def rest_of(client: socket.socket) -> bytes:
    """Read until the connection ends or breaks."""
    whole = b""
    try:
        while data := client.recv(65_536):
            whole += data
    except ConnectionResetError:
        pass
    return whole


# --- servers


@contextmanager
def narrow(app: FastAPI, http: Any, loop: Any) -> Iterator[tuple[uvicorn.Server, int]]:
    """Yield a real uvicorn whose connections buffer little unread data, and its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1024)
        config = uvicorn.Config(app, http=http, loop=loop, log_config=None, ws="none", timeout_graceful_shutdown=5)
        server = uvicorn.Server(config)
        thread = Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield server, listener.getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def process(port: int) -> Iterator[subprocess.Popen[str]]:
    """Yield the API in a separate process without a timeout for its shutdown; kill it if it is still alive."""
    command = [sys.executable, "-m", "uvicorn", "--factory", "api.main:create_app", "--port", str(port)]
    with subprocess.Popen([*command, "--no-access-log"], cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        assert started.stderr is not None
        try:
            assert any("Uvicorn running" in line for line in started.stderr)
            yield started
        finally:
            started.kill()


class Queries(list[str]):
    """The queries of an API's streams and of their follower, which both run in AnyIO's threads."""

    def __init__(self) -> None:
        super().__init__()
        self._more = Condition()

    def note(self, connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        """Record a statement that is about to be sent."""
        if current_thread().name.startswith("AnyIO") and statement.startswith("SELECT"):
            with self._more:
                self.append(statement)
                self._more.notify()

    def wait_for(self, count: int) -> bool:
        """Wait until this many statements were sent."""
        with self._more:
            return self._more.wait_for(lambda: len(self) >= count, 20)


@contextmanager
def queries(app: FastAPI) -> Iterator[Queries]:
    """Yield a list that collects the queries sent in this context."""
    found, engine = Queries(), app.state.database.engine
    listening.listen(engine, "before_cursor_execute", found.note)
    yield found
    listening.remove(engine, "before_cursor_execute", found.note)


def until(look: Callable[[], Any], seconds: float = 20) -> Any:
    """Return the first true result of `look`, or its last one, and let the server's thread run in between."""
    deadline = monotonic() + seconds
    while not (found := look()) and monotonic() < deadline:
        sleep(0.005)
    return found


class Log(list[str]):
    """A log that the test reads."""

    def warning(self, text: str, **_: Any) -> None:
        """Record a warning."""
        self.append(text)


# --- the events of a stream


def test_an_ended_job_streams_all_events_in_order(api: TestClient, work: Work) -> None:
    """Every transition and every epoch is one event with the right fields; then the stream ends."""
    job = failed_job(work)
    found = heard(api, job) or []

    assert found == recorded(work, job)
    assert all(one["data"].keys() == FIELDS[one["event"]] for one in found)
    assert {one["event"] for one in found} == FIELDS.keys()
    assert (found[0]["data"]["state"], found[-1]["data"]["state"]) == ("queued", "failed")
    assert [one["data"]["val_accuracy"] for one in found if one["event"] == "epoch"] == [0.5, None, 0.5, None]


@ONCE
def test_caches_and_proxies_are_told_not_to_keep_a_stream(api: TestClient, work: Work) -> None:
    """Headers tell caches and proxies not to store or buffer it."""
    headers = api.get(path(failed_job(work))).headers

    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] in ("no-cache", "no-store")
    assert headers["x-accel-buffering"] == "no"


@pytest.mark.parametrize("page", [1, 3, 500])
def test_a_stream_continues_after_any_event(
    api: TestClient, work: Work, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    """With any page size nothing is missing and nothing comes twice; after the last event the answer is 204."""
    monkeypatch.setattr("api.views.streams.PAGE", page)
    job = failed_job(work)
    whole = recorded(work, job)

    for after in range(whole[-1]["id"] + 2):
        rest = [one for one in whole if one["id"] > after] or None
        assert heard(api, job, **{"Last-Event-ID": str(after)}) == rest


@ONCE
def test_the_header_overrides_the_query(api: TestClient, work: Work) -> None:
    """A browser that reconnects repeats its first URL, and sends its position in the header."""
    job = failed_job(work)
    whole = recorded(work, job)

    assert heard(api, job, "?after=3") == [one for one in whole if one["id"] > 3]
    assert heard(api, job, "?after=1", **{"Last-Event-ID": "3"}) == [one for one in whole if one["id"] > 3]
    assert heard(api, job, "?after=3", **{"Last-Event-ID": "0"}) == whole


def test_events_arrive_as_they_happen(url: str, work: Work) -> None:
    """Each event written while a stream is open arrives by itself, and the stream ends with the job."""
    job = work.accept()
    with stream(url, job) as events:
        assert [next(events)] == recorded(work, job)
        claim = work.pack(2)
        assert list(islice(events, 3)) == recorded(work, job)[1:]
        for step in (1, 2, 3):
            work.measure(claim, 0, measurement(step, 0.5))
            assert next(events) == recorded(work, job)[-1]
        ends(work, claim, 0, 1)
        assert [one["data"]["state"] for one in events] == ["diverged", "diverged", "failed"]


def test_no_event_of_several_writers_is_missed(url: str, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unbroken stream and a stream that breaks after every event send the same events in order."""
    monkeypatch.setattr("api.views.streams.PAGE", 3)
    job = work.accept(budget={"trials": 3})
    claims = [work.pack(1) for _ in range(3)]

    def run(number: int) -> None:
        for step in range(1, 9):
            work.measure(claims[number], number, measurement(step, 0.5))
        ends(work, claims[number], number)

    writers = [Thread(target=run, args=[number]) for number in range(3)]
    with stream(url, job) as events:
        for writer in writers:
            writer.start()
        broken: list[Told] = []
        while not broken or broken[-1]["data"].get("state") != "failed":
            with stream(url, job, broken[-1]["id"] if broken else 0) as others:
                broken.append(next(others))
        for writer in writers:
            writer.join()

        assert broken == list(events) == recorded(work, job)
    assert len(broken) == 1 + 1 + 3 + 24 + 3 + 1


def test_an_event_committed_while_a_page_is_read_comes_in_order(app: FastAPI, url: str, work: Work) -> None:
    """Transitions are read before epochs. An epoch committed in between must not overtake an earlier transition."""
    job = work.accept()
    claim = work.pack(2)
    ended = Finished(0, TrialState.DIVERGED, "for the test", None, None, None)
    written: list[str] = []

    def write(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "measurement" in statement and not written:
            written.append(statement)
            work.ledger.record(claim, [ended, Measured(1, measurement(1, 0.5), {})], {})

    listening.listen(app.state.database.engine, "before_cursor_execute", write)
    with stream(url, job) as events:
        found = list(islice(events, 6))

        assert written
        assert found == recorded(work, job)


def test_a_stream_continues_in_another_process(app: FastAPI, work: Work) -> None:
    """Two APIs on one database send the same events, and a stream that began on one can continue on the other."""
    job = work.accept()
    claim = work.pack(2)
    with serving(app) as one, serving(create_app()) as another:
        with stream(one, job) as events:
            begun = list(islice(events, 2))
        with stream(another, job, begun[-1]["id"]) as events, stream(one, job) as others:
            ends(work, claim, 0, 1)

            assert begun + list(events) == list(others) == recorded(work, job)


def test_an_extended_job_streams_its_new_events(app: FastAPI, url: str, work: Work, environment: Path) -> None:
    """After 204 for a completed job, raising its budget gives new events to a client that asks again."""
    job = publish(work, environment).job
    with stream(url, job) as events:
        *_, last = events
    assert last["data"]["state"] == "completed"
    assert httpx2.get(url + path(job), params={"after": last["id"]}).status_code == 204
    work.controls.extend(job.id, {"trials": 3})

    with stream(url, job, last["id"]) as events:
        assert next(events)["data"]["state"] == "queued"
        work.cancel(job)
        assert next(events)["data"]["state"] == "cancelled"
        assert list(events) == []


# --- refused requests


@ONCE
@pytest.mark.parametrize("odd", ["x", "", " ", "-1", "1.0", "1_0", "+1", "1e3", "0x1", "9" * 19, "9" * 5000, "\xb2"])
def test_a_malformed_id_is_refused_before_a_stream_begins(api: TestClient, work: Work, odd: str) -> None:
    """The answer is 422 and names the header or the parameter."""
    job = work.accept()

    header = (b"Last-Event-ID", odd.encode("latin-1"))

    assert "whole number" in pointers(api.get(path(job), headers=[header]))["Last-Event-ID"]
    assert "whole number" in pointers(api.get(path(job), params={"after": odd}))["?after"]


@pytest.mark.parametrize("job_id", ["0123456789ab", "none", "%00", "a" * 65])
def test_an_unknown_job_is_not_found_before_a_stream_begins(api: TestClient, job_id: str) -> None:
    """The answer is 404, as for every other request about an unknown job."""
    assert "GET /jobs lists them" in problem(api.get(f"/jobs/{job_id}/events"), 404)["detail"]


@ONCE
def test_one_stream_too_many_is_refused(app: FastAPI, url: str, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is 503 with Retry-After; a client that leaves makes room."""
    monkeypatch.setattr("api.views.streams.MAX_STREAMS", 2)
    job = work.accept()
    with stream(url, job):
        with stream(url, job):
            refused = httpx2.get(url + path(job))

            assert "2 event streams" in problem(refused, 503)["detail"]
            assert int(refused.headers["retry-after"]) > 0
        assert until(lambda: app.state.streams.open == 1)
        with stream(url, job) as events:
            assert next(events)["id"] == 1


@ONCE
def test_the_openapi_document_describes_events(api: TestClient) -> None:
    """Each kind of event has a schema, and 204 has a description."""
    document = api.get("/openapi.json").json()
    answers = document["paths"]["/jobs/{job_id}/events"]["get"]["responses"]
    data = answers["200"]["content"]["text/event-stream"]["itemSchema"]["properties"]["data"]
    names = [kind["$ref"].rpartition("/")[2] for kind in data["contentSchema"]["anyOf"]]
    schemas = [document["components"]["schemas"][name] for name in names]

    assert names == ["JobEvent", "TrialEvent", "EpochEvent"]
    assert [schema["properties"].keys() for schema in schemas] == list(FIELDS.values())
    assert "ended" in answers["204"]["description"]


# --- the cost of a stream


@pytest.mark.parametrize("idle", [1, 50])
def test_all_idle_streams_together_cost_one_query_per_look(app: FastAPI, url: str, work: Work, idle: int) -> None:
    """The follower reads the counters of all watched jobs in one query; streams send none."""
    jobs = [work.accept() for _ in range(5)]
    with ExitStack() as open_streams:
        streams = [open_streams.enter_context(stream(url, jobs[number % 5])) for number in range(idle)]
        assert {next(events)["id"] for events in streams} == {1}
        with queries(app) as found:
            assert found.wait_for(10)
        assert app.state.streams.open == idle

    assert len(set(found)) == 1
    assert "job.sequence" in found[0]
    assert "FROM job" in found[0]


@ONCE
def test_without_a_stream_no_query_is_sent(app: FastAPI, url: str, work: Work) -> None:
    """The follower stops once the last client has left, whether its stream had ended or not."""
    job = work.accept()
    with stream(url, job) as events:
        next(events)
        with stream(url, job) as others:
            next(others)
        work.cancel(job)
        list(events)
    assert until(lambda: app.state.streams.open == 0)

    with queries(app) as before:
        sleep(0.1)  # a look that had begun
    with queries(app) as found:
        sleep(0.3)  # fifteen looks
    assert len(before) <= 1
    assert found == []


def test_streams_at_the_same_position_share_one_read(app: FastAPI, url: str, work: Work) -> None:
    """For twenty clients an event takes three queries: the job's row, its transitions, and its epochs."""
    job = work.accept()
    with ExitStack() as open_streams:
        streams = [open_streams.enter_context(stream(url, job)) for _ in range(20)]
        assert {next(events)["id"] for events in streams} == {1}
        with queries(app) as found:
            work.cancel(job)
            assert [next(events)["data"]["state"] for events in streams] == ["cancelled"] * 20

    assert len([statement for statement in found if " IN (" not in statement]) == 3


@ONCE
def test_an_idle_stream_is_kept_alive(url: str, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment is sent now and then, so that no proxy closes the idle connection."""
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    job = work.accept()
    with httpx2.stream("GET", url + path(job), timeout=20) as response:
        pings = (line for line in response.iter_lines() if line.startswith(":"))

        assert list(islice(pings, 3)) == [": ping"] * 3


# --- failures


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_streams_survive_a_database_that_is_away(
    url: str, work: Work, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The follower logs the error and goes on. Open streams send the events later; new requests get 503."""
    name, log = work.database.url.database, Log()
    monkeypatch.setattr("api.views.streams.log", log)
    job = work.accept()
    with stream(url, job) as events, psycopg.connect(postgres.format("postgres"), autocommit=True) as connection:
        next(events)
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        assert until(lambda: len(log) > 2)
        assert "database" in problem(httpx2.get(url + path(job)), 503)["detail"]
        connection.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        work.cancel(job)

        assert [one["data"]["state"] for one in events] == ["cancelled"]
    assert set(log) == {"could not look for events"}


def test_a_read_that_fails_is_repeated(app: FastAPI, url: str, work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """An open stream cannot report an error any more, so it waits and misses nothing."""
    log = Log()
    monkeypatch.setattr("api.views.streams.log", log)

    def fail(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if len(log) < 2 and "FROM event" in statement:
            raise OperationalError(statement, {}, Exception("gone"))

    job = work.accept()
    with stream(url, job) as events:
        next(events)
        listening.listen(app.state.database.engine, "before_cursor_execute", fail)
        work.cancel(job)

        assert [one["data"]["state"] for one in events] == ["cancelled"]
    assert log == ["could not read events"] * 2


@pytest.mark.long
@ONCE
@pytest.mark.parametrize(("http", "loop"), [("httptools", "uvloop"), ("h11", "asyncio")])
def test_a_client_that_does_not_read_is_disconnected(
    environment: Path,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    http: str,
    loop: str,
) -> None:
    """Until then the server buffers about one event; the client can request the missed ones again."""
    monkeypatch.setattr("api.http.slow_readers.SEND_SECONDS", 0.5)
    job = long_job(work)
    app = create_app()
    with narrow(app, http, loop) as (server, port), deaf(port, job) as client:
        began = monotonic()
        assert until(lambda: app.state.streams.open == 1)
        (connection,) = server.server_state.connections
        waiting = []
        while server.server_state.connections and monotonic() < began + 10:
            waiting.append(connection.transport.get_write_buffer_size())
        lasted = monotonic() - began
        assert until(lambda: app.state.streams.open == 0)
        text = rest_of(client)
        read = [int(number) for number in re.findall(rb"\nid: (\d+)\n\n", text)]
        rest = [number for number in ids(work, job) if number > read[-1]]
        with stream(f"http://127.0.0.1:{port}", job, read[-1]) as events:
            assert [next(events)["id"] for _ in rest] == rest

    assert 0.5 < lasted < 5
    assert max(waiting) < 1000
    assert not text.endswith(b"0\r\n\r\n")
    assert read + rest == ids(work, job)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.long
@ONCE
def test_a_client_that_reads_slowly_is_not_disconnected(
    environment: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may take many times as long as the limit, which applies only to a client that reads nothing."""
    monkeypatch.setattr("api.http.slow_readers.SEND_SECONDS", 0.5)
    job = long_job(work, 300)
    whole, text = recorded(work, job), b""
    with narrow(create_app(), "httptools", "uvloop") as (_, port), deaf(port, job) as client:
        while text.count(b"\nid: ") < len(whole):
            text += client.recv(4096)
            sleep(0.1)

    assert text.count(b"event: epoch\n") == 300


@pytest.mark.long
@ONCE
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_open_streams_end_with_the_process(environment: Path, work: Work, number: signal.Signals) -> None:
    """All streams end properly at once; uvicorn alone would wait for them forever."""
    port = free_port()
    job = work.accept()
    with process(port) as server, ExitStack() as open_streams:
        streams = [open_streams.enter_context(stream(f"http://127.0.0.1:{port}", job)) for _ in range(20)]
        assert {next(events)["id"] for events in streams} == {1}
        asked = monotonic()
        server.send_signal(number)
        server.wait(10)

        assert monotonic() - asked < 2
        assert [list(events) for events in streams] == [[]] * 20


@pytest.mark.long
@ONCE
def test_a_client_that_does_not_read_does_not_delay_the_shutdown(environment: Path, work: Work) -> None:
    """The client gets one second to read the data already sent."""
    port = free_port()
    job = wordy_job(work)
    with process(port) as server, deaf(port, job) as client:
        client.recv(1)
        asked = monotonic()
        server.send_signal(signal.SIGTERM)
        server.wait(10)

        assert monotonic() - asked < 3
        assert len(rest_of(client)) < 2**22


def test_the_previous_signal_handler_is_called_and_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's handler is called after ours, and restored afterwards."""
    order: list[object] = []

    def servers(number: int, frame: object) -> None:
        order.append(signal.Signals(number))

    async def told_to_end() -> None:
        ending = anyio.Event()
        with on_ending(lambda: order.append("ours"), ending.set), anyio.fail_after(5):
            signal.raise_signal(signal.SIGTERM)
            await ending.wait()

    previous = signal.signal(signal.SIGTERM, servers)
    try:
        anyio.run(told_to_end)
        put_back = signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)

    assert put_back is servers
    assert sorted(order, key=str) == sorted([signal.SIGTERM, "ours"], key=str)


# --- the client


def test_the_client_yields_events_until_the_job_has_ended(url: str, work: Work) -> None:
    """The client yields past and future events, from the first or after any other."""
    job = work.accept()
    with Chiffre(url) as client:
        events = client.events(job.id)
        first = next(events)
        work.cancel(job)
        whole = [first, *events]

        assert whole == recorded(work, job)
        assert list(client.events(job.id, after=1)) == whole[1:]
        assert list(client.events(job.id, after=whole[-1]["id"])) == []


@pytest.mark.long
@ONCE
def test_the_client_survives_an_api_that_is_killed_and_restarted(
    environment: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client retries with longer and longer pauses, and yields every event once."""
    port = free_port()
    job = work.accept()
    pauses: list[float] = []
    with ExitStack() as running, Chiffre(f"http://127.0.0.1:{port}") as client:

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 4:
                running.enter_context(process(port))

        monkeypatch.setattr("api.client.sleep", pause)
        with process(port):
            events = client.events(job.id)
            begun = [next(events)]
        claim = work.pack(2)
        begun += islice(events, 3)
        ends(work, claim, 0, 1)

        assert begun + list(events) == recorded(work, job)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 0.1]


@ONCE
def test_the_client_gives_up_on_an_api_that_does_not_come_back(
    environment: Path, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is the same as for an API that was never there."""
    monkeypatch.setattr("api.client.AWAY_SECONDS", 0.5)
    port = free_port()
    job = work.accept()
    with Chiffre(f"http://127.0.0.1:{port}") as client:
        with process(port):
            events = client.events(job.id)
            next(events)
        for told in (events, client.events(job.id)):
            with pytest.raises(ApiError, match="does not answer"):
                next(told)


@ONCE
def test_a_refused_request_is_not_retried(url: str, work: Work) -> None:
    """Retrying would not help."""
    with Chiffre(url) as client:
        for job_id, after, status in (("0123", 0, 404), ("", 0, 404), ("a/b", 0, 404), (work.accept().id, -1, 422)):
            with pytest.raises(ApiError) as caught:
                next(client.events(job_id, after))

            assert caught.value.status == status, job_id


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("It works!"),
        PlainTextResponse("no", 404),
        EventSourceResponse(iter([b"data: 1\n\n"])),
        EventSourceResponse(iter([b"id: 1\ndata: {\n\n"])),
    ],
    ids=["page", "error", "no id", "no json"],
)
def test_events_of_another_service_are_refused(answer: Response) -> None:
    """Any answer of another service becomes an ApiError."""
    stranger = FastAPI()
    stranger.add_route("/{rest:path}", lambda request: answer)
    with serving(stranger) as url, Chiffre(url) as client, pytest.raises(ApiError, match="Chiffre"):
        next(client.events("0123"))
