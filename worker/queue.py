"""The doorbell: a Celery message says that there is work, never which; the database says that.

A message that is lost costs a few seconds, until some worker looks by itself.
"""

from concurrent.futures import ThreadPoolExecutor

import structlog
from celery import Celery

from ml.specs import TrainSpec, TuneSpec
from worker.ledger import Ledger
from worker.once import Once
from worker.settings import settings
from worker.tables import Job

RING = "chiffre.ring"
RING_EXPIRES = 30  # seconds; idle workers look by themselves long before

log = structlog.get_logger()

app = Celery("chiffre", broker=settings().broker, include=["worker.tasks"])
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    result_backend=None,
    task_ignore_result=True,
    task_default_queue="chiffre",
    worker_pool="threads",
    worker_concurrency=settings().trainers,
    # A message belongs to whoever is idle; one that is prefetched by a busy worker is stranded by a broker restart.
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    # The lease in the database is what protects work, so a message is done when it is read.
    task_acks_late=False,
    task_publish_retry=False,
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_transport_options={
        "visibility_timeout": 3600,
        "socket_timeout": 5,
        "socket_connect_timeout": 1,
        "socket_keepalive": True,
        "health_check_interval": 10,
    },
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
)

_ringer = ThreadPoolExecutor(1, thread_name_prefix="ring")


def submit(ledger: Ledger, spec: TrainSpec | TuneSpec, once: Once | None = None) -> Job:
    """Accept a job, then ring for a worker."""
    job = ledger.accept(spec, once)
    ring()
    return job


def ring() -> None:
    """Wake one idle worker, in the background: a broker that is slow or gone delays nobody."""
    if settings().broker is not None:
        _ringer.submit(_send)


def _send() -> None:
    try:
        app.send_task(RING, expires=RING_EXPIRES, ignore_result=True)
    except Exception as error:  # whatever the transport raises: the job is safe, and workers look by themselves
        log.warning("could not ring", error=str(error), hint="workers find the job within CHIFFRE_POLL_SECONDS")


def broker_answers() -> bool:
    """Whether a broker is named and can be reached."""
    if settings().broker is None:
        return False
    try:
        with app.connection_for_write(connect_timeout=1) as connection:
            connection.ensure_connection(max_retries=1, timeout=1)
    except Exception:  # whatever the transport raises
        return False
    return True
