"""The doorbell: it says that there is work, never which; the database says that.

A ring that is lost costs a few seconds, until some worker looks by itself. The broker's clients are imported when they
are first used: they take 20 MB, which an API that only predicts need not have.
"""

from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import Any

import structlog

from worker.settings import settings

RING_EXPIRES = 30  # seconds; idle workers look by themselves long before
TIMEOUTS: dict[str, Any] = {"socket_timeout": 1, "socket_connect_timeout": 1}  # seconds
WAITING = 16  # rings that wait for a slow broker: a worker that finds work rings for the next, so that more say nothing

log = structlog.get_logger()

_ringer = ThreadPoolExecutor(1, thread_name_prefix="ring")
_waiting = BoundedSemaphore(WAITING)


def ring() -> None:
    """Wake one idle worker, in the background: a broker that is slow or gone delays nobody."""
    if settings().broker is not None and _waiting.acquire(blocking=False):
        _ringer.submit(_send).add_done_callback(lambda _: _waiting.release())


def _send() -> None:
    from worker.queue import RING, app

    try:
        app.send_task(RING, expires=RING_EXPIRES, ignore_result=True)
    except Exception as error:  # whatever the transport raises: the job is safe, and workers look by themselves
        log.warning("could not ring", error=str(error), hint="workers find the job within CHIFFRE_POLL_SECONDS")


def broker_answers() -> bool:
    """Whether a broker is named and can be reached."""
    url = settings().broker
    if url is None:
        return False
    from redis import Redis, RedisError

    try:
        # Celery's name for a socket, and the client's.
        with Redis.from_url(url.replace("redis+socket://", "unix://"), **TIMEOUTS) as client:
            return bool(client.ping())
    except (RedisError, ValueError, OSError):
        return False
