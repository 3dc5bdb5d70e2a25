"""`chiffre up`: it prints one line when ready, and Ctrl-C ends everything it started."""

import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest
from acceptance.services import CHIFFRE, START_SECONDS, STOP_SECONDS, Up, chiffre_up, command_environment

from api.client import Chiffre
from worker.local import LOG_BYTES, Service, free_port

pytestmark = pytest.mark.long  # all tests together take a quarter of a minute


def refused(*arguments: str, **environment: str) -> str:
    """Run `chiffre up`, which must refuse to start, and return its message."""
    done = subprocess.run(
        [CHIFFRE, "up", *arguments],
        env={**command_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return " ".join(done.stderr.split())


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """Services that no test stops."""
    with chiffre_up(tmp_path_factory.mktemp("up") / "home") as services:
        yield services


def test_the_home_is_closed_to_others_and_the_broker_listens_on_no_port(up: Up) -> None:
    """Only the user who started it can reach the socket of the broker and the database."""
    mode = stat.S_IMODE(up.home.stat().st_mode)
    valkey = next(process for process in up.everything() if process.name() == "valkey-server")
    listening = [c for c in valkey.net_connections(kind="inet") if c.status == psutil.CONN_LISTEN]

    assert mode == 0o700
    assert listening == []
    assert {"chiffre.db", "logs", "valkey"} <= {path.name for path in up.home.iterdir()}


def test_a_home_in_use_is_refused(up: Up) -> None:
    """Two instances cannot share a database file by accident."""
    message = refused("--home", str(up.home), "--port", str(free_port()))

    assert "in use by another `chiffre up`; stop it or choose another folder with --home" in message


def test_a_service_that_dies_is_started_again(up: Up) -> None:
    """Kill -9 of the API delays callers by seconds, and does not affect jobs."""
    with Chiffre(up.url) as client:
        posted = client.train({"model": "perceptron", "dataset": "digits", "budget": {"epochs": 1}})
        api = next(process for process in up.everything() if "uvicorn" in " ".join(process.cmdline()))
        os.kill(api.pid, signal.SIGKILL)
        psutil.wait_procs([api], timeout=10)
        wait_until_answered(f"{up.url}/livez")
        *_, ended = client.follow(posted["id"])

    assert ended["state"] == "completed"


def wait_until_answered(url: str) -> None:
    """Wait until the API answers again."""
    transport = httpx2.HTTPTransport(retries=10)  # with growing pauses, half a minute in total
    with httpx2.Client(transport=transport, timeout=START_SECONDS) as client:
        client.get(url)


@dataclass(frozen=True)
class Stopped:
    """Services that were stopped."""

    home: Path
    job_id: str
    seen: dict[str, Any]  # of their job, while they ran
    running: set[str]  # the names of their processes
    processes: int  # their number
    left: list[psutil.Process]  # processes that did not end
    status: int


def stopped(up: Up, job_id: str, seen: dict[str, Any], number: int) -> Stopped:
    """Send a signal to `chiffre up`, and return what became of its processes."""
    running = up.everything()
    names = {process.name() for process in running}
    up.process.send_signal(number)
    status = up.process.wait(STOP_SECONDS)
    _, left = psutil.wait_procs(running, timeout=30)
    return Stopped(up.home, job_id, seen, names, len(running), left, status)


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """Services that Ctrl-C stopped while they trained; the path of their home is long."""
    spec = {"model": "perceptron", "dataset": "digits", "budget": {"trials": 1, "epochs": 1000, "seconds": 4}}
    with chiffre_up(tmp_path_factory.mktemp("up") / ("long" * 30)) as up, Chiffre(up.url) as client:
        job_id = client.tune(spec)["id"]
        next(job for job in client.follow(job_id, every=0.1) if job["state"] == "running")
        return stopped(up, job_id, {"socket": (up.home / "valkey" / "valkey.sock").exists()}, signal.SIGINT)


@pytest.fixture(scope="module")
def restarted(interrupted: Stopped) -> Stopped:
    """The interrupted services, which were started again; SIGTERM stopped them once their job had ended."""
    with chiffre_up(interrupted.home) as up, Chiffre(up.url) as client:
        *_, job = client.follow(interrupted.job_id)
        trial = client.trial(interrupted.job_id, 0)
        return stopped(up, interrupted.job_id, {"job": job, "trial": trial}, signal.SIGTERM)


def test_ctrl_c_ends_everything(interrupted: Stopped) -> None:
    """Broker, worker, trainers and API all end, and the exit status is 0."""
    assert "valkey-server" in interrupted.running
    assert interrupted.processes >= 4
    assert interrupted.status == 0
    assert interrupted.left == []


def test_a_home_with_a_long_path_works(interrupted: Stopped) -> None:
    """The socket of the broker moves to another folder if its path would exceed the kernel's limit of 108 bytes."""
    assert len(str(interrupted.home)) > 108
    assert not interrupted.seen["socket"]


def test_jobs_survive_a_restart_of_the_services(restarted: Stopped) -> None:
    """A job that was running when the services stopped continues after the next start, and completes."""
    job, trial = restarted.seen["job"], restarted.seen["trial"]
    epochs = [measured["epoch"] for measured in trial["measurements"]]

    assert (job["state"], sum(job["trials"].values())) == ("completed", 1)
    assert epochs == [float(n + 1) for n in range(len(epochs))] != []


def test_sigterm_ends_everything_too(restarted: Stopped) -> None:
    """A service manager can stop `chiffre up` with SIGTERM, with the same effect as Ctrl-C."""
    assert restarted.left == []


def test_it_becomes_ready_with_any_allowed_hosts_and_leaves_no_process_if_it_is_killed(tmp_path: Path) -> None:
    """`chiffre up` becomes ready even if it accepts only another name than its address, and a proxy is configured.

    After kill -9 of `chiffre up` all processes that it started end.
    """
    environment = {"CHIFFRE_ALLOWED_HOSTS": '["*.example.org"]', "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
    with chiffre_up(tmp_path / "home", "--host", "0.0.0.0", **environment) as up:
        url = up.url.replace("0.0.0.0", "127.0.0.1")
        named = httpx2.get(f"{url}/readyz", headers={"host": "chiffre.example.org"}, trust_env=False)
        other = httpx2.get(f"{url}/readyz", trust_env=False)
        killed = stopped(up, "", {}, signal.SIGKILL)

    assert (named.status_code, other.status_code) == (200, 400)
    assert killed.left == []


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """The message names the port and the option."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = refused("--home", str(tmp_path / "home"), "--port", str(port))

    assert f"cannot listen on 127.0.0.1:{port}" in message
    assert "choose another port with --port" in message


def test_a_long_log_is_replaced(tmp_path: Path) -> None:
    """Only the last replaced log is kept."""
    log = tmp_path / "echo.log"
    for line in ("first", "second", "third"):
        log.write_text(f"{line}\n".ljust(LOG_BYTES + 1))
        service = Service("echo", ["echo", "started"], dict(os.environ), log)
        service.start()
        assert service.process is not None
        service.process.wait()

    assert log.read_text() == "started\n"
    assert (tmp_path / "echo.log.1").read_text().split() == ["third"]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_short_log_is_continued(tmp_path: Path) -> None:
    """The earlier lines are kept."""
    log = tmp_path / "echo.log"
    log.write_text("before\n")
    service = Service("echo", ["echo", "started"], dict(os.environ), log)
    service.start()
    assert service.process is not None
    service.process.wait()

    assert log.read_text() == "before\nstarted\n"


def test_a_home_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    """The message is the same if the home comes from the environment."""
    (tmp_path / "file").write_text("no folder")

    assert "cannot be written" in refused("--home", str(tmp_path / "file" / "home"))
    assert f"{tmp_path}/file/home cannot be written" in refused(CHIFFRE_HOME=f"{tmp_path}/file/home")
