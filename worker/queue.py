"""The Celery application. A message only says that there is work; the database says which."""

from celery import Celery

from worker.settings import cores, settings

WAKE = "chiffre.ring"  # a name on the wire, which workers of an older release know

app = Celery("chiffre", broker=settings().broker, include=["worker.tasks"])
app.conf.update(
    task_serializer="json",
    accept_content=["json"],
    result_backend=None,
    task_ignore_result=True,
    task_default_queue="chiffre",
    worker_pool="threads",
    worker_concurrency=settings().trainers or cores(),
    # Only an idle worker may take a message: a broker restart loses one that a busy worker has prefetched.
    worker_prefetch_multiplier=1,
    worker_disable_prefetch=True,
    # The lease in the database protects the work, so a message is acknowledged when it is read.
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
