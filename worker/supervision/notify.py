"""Messages that wake workers. A message only says that there is work; the database says which.

A lost message costs a few seconds, until a worker polls the database. The broker's clients are imported on first use:
they take 20 MB, which an API that only predicts does not need.
"""

from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Any

import structlog

from worker.settings import settings

WAKE_EXPIRES = 30  # seconds; idle workers poll the database long before
TIMEOUTS: dict[str, Any] = {"socket_timeout": 1, "socket_connect_timeout": 1}  # seconds
WAITING = 16  # messages that may wait for a slow broker; more are useless, as a worker with work wakes the next one

log = structlog.get_logger()

_sender = ThreadPoolExecutor(1, thread_name_prefix="wake")
_waiting = BoundedSemaphore(WAITING)


def wake_worker() -> None:
    """Wake one idle worker in the background, so that a slow or missing broker does not delay the caller."""
    if settings().broker is not None and _waiting.acquire(blocking=False):
        _sender.submit(_send).add_done_callback(lambda _: _waiting.release())


def _send() -> None:
    from worker.queue import WAKE, app  # loads Celery: see the top of this file

    try:
        app.send_task(WAKE, expires=WAKE_EXPIRES, ignore_result=True)
    except Exception as error:  # broad on purpose: transports raise anything, and workers find the job by polling
        log.warning(
            "could not wake a worker", error=str(error), hint="workers find the job within CHIFFRE_POLL_SECONDS"
        )


def broker_answers() -> bool:
    """Return whether a broker is configured and can be reached."""
    url = settings().broker
    if url is None:
        return False
    from redis import Redis, RedisError  # see the top of this file

    try:
        # Celery and the client name a Unix socket differently.
        with Redis.from_url(url.replace("redis+socket://", "unix://"), **TIMEOUTS) as client:
            return bool(client.ping())
    except (RedisError, ValueError, OSError):
        return False
