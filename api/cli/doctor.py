"""Whether an installation is sound: each check says what it found, and what to do where that is not good."""

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
SCARCE, TOO_LITTLE = 2 << 30, 200 << 20  # bytes free: a long search keeps gigabytes, a job needs some megabytes
CHILD_SECONDS = 120
TORCH = (
    "import torch; x = torch.ones(8, 8); assert (x @ x).sum() == 512; "
    "print(torch.__version__, torch.cuda.is_available())"
)


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: Literal["good", "doubtful", "wrong"]
    found: str
    advice: str = ""


def checked(settings: Settings, client: Chiffre) -> Iterator[Check]:
    """Everything, one after another; nothing is changed. `client` is one of the API that should answer."""
    looks: tuple[Callable[[], Check], ...] = (
        _python,
        _torch,
        lambda: _disk(settings.home),
        lambda: _database(settings),
        lambda: _broker(settings),
        lambda: _worker(settings),
        lambda: _api(client),
    )
    yield from (look() for look in looks)
    yield from (_dataset(name) for name in datasets)


def _python() -> Check:
    found = sys.version.split()[0]
    if sys.version_info < PYTHON:
        return Check("Python", "wrong", found, "Chiffre needs Python 3.11 or newer; make a new environment with one")
    try:
        return Check("Python", "good", f"{found}, Chiffre {version('chiffre')}")
    except PackageNotFoundError:
        return Check("Python", "wrong", f"{found}, Chiffre is not installed", "pip install -e . in its folder")


def _torch() -> Check:
    """It computes, in a process of its own: a wheel for another processor ends there."""
    command = [sys.executable, "-c", TORCH]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=CHILD_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Check("PyTorch", "doubtful", f"no answer in {CHILD_SECONDS} s", "the machine is busy; try again")
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or [f"ended by signal {-done.returncode}"]
        return Check("PyTorch", "wrong", last[0], "make setup; TORCH_INDEX names an index of CPU builds")
    number, cuda = done.stdout.split()
    return Check("PyTorch", "good", f"{number}, {'with' if cuda == 'True' else 'without'} CUDA")


def _disk(home: Path) -> Check:
    place = next(folder for folder in (home.absolute(), *home.absolute().parents) if folder.exists())
    free = shutil.disk_usage(place).free
    found = f"{free / 1e9:.1f} GB free under {place}"
    if free < TOO_LITTLE:
        return Check("disk", "wrong", found, "make room, or set CHIFFRE_HOME to a larger disk; jobs would be paused")
    return Check("disk", "doubtful" if free < SCARCE else "good", found, "make room soon" if free < SCARCE else "")


def _database(settings: Settings) -> Check:
    """It answers, and its schema is this release's."""
    url = settings.database
    if url.startswith("sqlite:///") and not Path(url.removeprefix("sqlite:///")).exists():
        return Check("database", "good", "none yet", "`chiffre up` makes it")
    database = Database(url)
    try:
        scripts = ScriptDirectory.from_config(configuration(database))
        head, known = scripts.get_current_head(), {script.revision for script in scripts.walk_revisions()}
        with database.engine.connect() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    except SQLAlchemyError as error:
        words = str(error.__cause__ or error).splitlines()[0][:200]
        return Check("database", "wrong", words, "start it, or mend CHIFFRE_DATABASE_URL")
    finally:
        database.close()
    name = database.url.render_as_string(hide_password=True)
    if found is not None and found not in known:
        return Check("database", "wrong", f"{name} is at migration {found} of another release", "install that release")
    if found != head:
        return Check("database", "wrong", f"{name} is at migration {found}, not {head}", "chiffre migrate")
    return Check("database", "good", f"{name} at migration {found}")


def _broker(settings: Settings) -> Check:
    url = _broker_url(settings)
    if url is None:
        return Check(
            "broker", "good", "none named and no `chiffre up` in this home", "`chiffre up` starts one of its own"
        )
    try:
        with _client(url) as client:
            client.ping()
        return Check("broker", "good", "answers")
    except (RedisError, OSError, ValueError) as error:
        return Check(
            "broker", "wrong", str(error)[:200], "start it, or mend CHIFFRE_BROKER_URL; jobs start seconds later"
        )


def _worker(settings: Settings) -> Check:
    """A worker that is idle waits at the broker for a ring; one that is not has a lease."""
    url = _broker_url(settings)
    start = "`chiffre up`, or `chiffre worker` beside an API of its own"
    if url is None:
        return Check("worker", "doubtful", "not running", start)
    try:
        with _client(url) as client:
            waiting = sum(one["cmd"].lower() in ("brpop", "blpop") for one in client.client_list())
    except (RedisError, OSError, ValueError):
        return Check("worker", "doubtful", "cannot be told without the broker", start)
    if waiting:
        return Check("worker", "good", f"{waiting} waiting for work")
    leased = _leases(settings)
    if leased:
        return Check("worker", "good", f"at work on {leased}")
    return Check(
        "worker", "wrong", "none waits and none works", f"{start}; logs/worker.log under the home says why it ended"
    )


def _leases(settings: Settings) -> int:
    """How many packs somebody holds."""
    database = Database(settings.database)
    try:
        with database.reading() as session:
            return int(session.scalar(select(func.count()).where(col(Pack.lease_owner).is_not(None))) or 0)
    except SQLAlchemyError:
        return 0
    finally:
        database.close()


def _api(client: Chiffre) -> Check:
    """It is ready; where nobody answers, its port must be free."""
    try:
        ready = client.ready()
    except ApiError as error:
        if error.status is None and _free(client.url):
            return Check("API", "doubtful", f"nothing at {client.url}, the port is free", "chiffre up")
        return Check(
            "API", "wrong", str(error)[:200], "another service may have the port: `chiffre up --port`, CHIFFRE_URL"
        )
    if not {"failing", "models"} <= ready.keys():
        return Check("API", "wrong", f"{client.url} is another service", "`chiffre up --port`, CHIFFRE_URL")
    if ready["failing"]:
        name, why = next(iter(ready["failing"].items()))
        return Check("API", "wrong", f"{name} does not load: {why}", f"chiffre rollback {name.split('/')[0]}")
    return Check("API", "good", f"{client.url} is ready; {len(ready['models'])} champions answer")


def _dataset(name: str) -> Check:
    try:
        datasets[name].load()
    except DataError as error:
        return Check(
            f"data set {name}", "wrong", str(error), "restore its files from the repository: git checkout ml/data"
        )
    return Check(f"data set {name}", "good", f"SHA-256 {datasets[name].sha256[:12]}…")


def _broker_url(settings: Settings) -> str | None:
    """The broker that is named, or that of a `chiffre up` in this home."""
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
