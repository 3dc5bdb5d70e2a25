"""Checks of an installation. Each check reports what it found, and what to do about a problem."""

import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from redis import Redis, RedisError
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col

from api.client import Chiffre
from api.connection import ApiError
from ml.datasets import datasets
from ml.errors import DataError
from worker.database.engine import Database
from worker.database.migrations import configuration
from worker.database.tables import Pack
from worker.settings import Settings

PYTHON = (3, 11)
SCARCE, TOO_LITTLE = 2 << 30, 200 << 20  # free bytes: a long search stores gigabytes, a job needs some megabytes
CHILD_SECONDS = 120
TORCH = (
    "import torch; x = torch.ones(8, 8); assert (x @ x).sum() == 512; "
    "print(torch.__version__, torch.cuda.is_available())"
)


@dataclass(frozen=True)
class Check:
    """The result of a check."""

    name: str
    state: Literal["good", "doubtful", "wrong"]
    found: str
    advice: str = ""


def checks_of(settings: Settings, client: Chiffre) -> Iterator[Check]:
    """Run all checks in turn, without changing anything.

    Args:
        settings: settings of the installation.
        client: client of the API that should answer.

    """
    checks: tuple[Callable[[], Check], ...] = (
        _python,
        _torch,
        lambda: _disk(settings.home),
        lambda: _database(settings),
        lambda: _broker(settings),
        lambda: _worker(settings),
        lambda: _api(client),
    )
    yield from (check() for check in checks)
    yield from (_dataset(name) for name in datasets)


def _python() -> Check:
    found = sys.version.split()[0]
    if sys.version_info < PYTHON:
        return Check(
            "Python", "wrong", found, "Chiffre needs Python 3.11 or newer; create a virtual environment with it"
        )
    try:
        return Check("Python", "good", f"{found}, Chiffre {version('chiffre')}")
    except PackageNotFoundError:
        return Check(
            "Python", "wrong", f"{found}, Chiffre is not installed", "run `pip install -e .` in Chiffre's folder"
        )


def _torch() -> Check:
    """Check that torch computes. A separate process survives a wheel for another processor, which crashes."""
    command = [sys.executable, "-c", TORCH]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Check(
            "PyTorch", "doubtful", f"no answer in {CHILD_SECONDS} s", "try again when the machine is less busy"
        )
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended by signal {-done.returncode}"]
        return Check("PyTorch", "wrong", last[0], "run `make setup`; TORCH_INDEX sets an index of CPU builds")
    number, cuda = done.stdout.split()
    return Check("PyTorch", "good", f"{number}, {'with' if cuda == 'True' else 'without'} CUDA")


def _disk(home: Path) -> Check:
    place = next(folder for folder in (home.absolute(), *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free under {place}"
    if free < TOO_LITTLE:
        advice = "free some space, or set CHIFFRE_HOME to a folder on a larger disk; jobs pause without space"
        return Check("disk", "wrong", found, advice)
    if free < SCARCE:
        return Check("disk", "doubtful", found, "free some space soon")
    return Check("disk", "good", found)


def _database(settings: Settings) -> Check:
    """Check that the database answers and has this release's schema."""
    url = settings.database
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return Check("database", "good", "none yet", "`chiffre up` creates it")
    database = Database(url)
    try:
        scripts = ScriptDirectory.from_config(configuration(database))
        head, known = scripts.get_current_head(), {script.revision for script in scripts.walk_revisions()}
        with database.engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        reason = str(error.__cause__ or error).splitlines()[0][:200]
        return Check("database", "wrong", reason, "start the database, or correct CHIFFRE_DATABASE_URL")
    finally:
        database.close()
    name = database.url.render_as_string(hide_password=True)
    if found is not None and found not in known:
        return Check("database", "wrong", f"{name} is at migration {found} of another release", "install that release")
    if found != head:
        return Check("database", "wrong", f"{name} is at migration {found}, not {head}", "run `chiffre migrate`")
    return Check("database", "good", f"{name} at migration {found}")


def _broker(settings: Settings) -> Check:
    """Check that the broker answers."""
    url = _broker_url(settings)
    if url is None:
        return Check("broker", "good", "none set, and no `chiffre up` uses this home", "`chiffre up` starts one")
    try:
        with _client(url) as client:
            client.ping()
        return Check("broker", "good", "answers")
    except (RedisError, OSError, ValueError) as error:
        advice = "start the broker, or correct CHIFFRE_BROKER_URL; without it jobs start some seconds later"
        return Check("broker", "wrong", str(error)[:200], advice)


def _worker(settings: Settings) -> Check:
    """Check that a worker runs. An idle worker waits at the broker; a busy one holds a lease."""
    url = _broker_url(settings)
    start = "run `chiffre up`, or `chiffre worker` if the API runs separately"
    if url is None:
        return Check("worker", "doubtful", "not running", start)
    try:
        with _client(url) as client:
            waiting = sum(one["cmd"].lower() in ("brpop", "blpop") for one in client.client_list())
    except (RedisError, OSError, ValueError):
        return Check("worker", "doubtful", "unknown, because the broker does not answer", start)
    if waiting:
        return Check("worker", "good", f"{waiting} waiting for work")
    leased = _leases(settings)
    if leased:
        return Check("worker", "good", f"{leased} packs in work")
    return Check(
        "worker", "wrong", "no worker is waiting or working", f"{start}; see logs/worker.log in the home folder"
    )


def _leases(settings: Settings) -> int:
    """Return the number of leased packs."""
    database = Database(settings.database)
    try:
        with database.reading() as session:
            return int(session.scalar(select(func.count()).where(col(Pack.lease_owner).is_not(None))) or 0)
    except SQLAlchemyError:
        return 0
    finally:
        database.close()


def _api(client: Chiffre) -> Check:
    """Check that the API is ready, or that its port is free."""
    other_port = "choose another port with `chiffre up --port`, and set CHIFFRE_URL"
    try:
        ready = client.ready()
    except ApiError as error:
        if error.status is None and _free(client.url):
            return Check("API", "doubtful", f"not running; the port of {client.url} is free", "run `chiffre up`")
        return Check("API", "wrong", str(error)[:200], f"another service may use the port; {other_port}")
    if not {"failing", "models"} <= ready.keys():
        return Check("API", "wrong", f"{client.url} is another service", other_port)
    if ready["failing"]:
        name, reason = next(iter(ready["failing"].items()))
        return Check("API", "wrong", f"{name} does not load: {reason}", f"run `chiffre rollback {name.split('/')[0]}`")
    return Check("API", "good", f"{client.url} is ready; serves {len(ready['models'])} champions")


def _dataset(name: str) -> Check:
    try:
        datasets[name].load()
    except DataError as error:
        return Check(
            f"data set {name}", "wrong", str(error), "restore its files from the repository: git checkout ml/data"
        )
    return Check(f"data set {name}", "good", f"SHA-256 {datasets[name].sha256[:12]}…")


def _broker_url(settings: Settings) -> str | None:
    """Return the URL of the broker: from the settings, or of the Valkey of a `chiffre up` in this home."""
    own = settings.home.resolve() / "valkey" / "valkey.sock"
    return settings.broker or (f"unix://{own}" if own.exists() else None)


def _client(url: str) -> Redis:
    return Redis.from_url(url.replace("redis+socket://", "unix://"), socket_timeout=2, socket_connect_timeout=2)


def _free(url: str) -> bool:
    try:
        port = urlsplit(url).port or 80
        with socket.create_server(("127.0.0.1", port)):
            return True
    except (OSError, ValueError):
        return False
