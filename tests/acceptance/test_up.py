"""`chiffre up`: it prints one line when ready, and Ctrl-C ends everything it started."""

import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import psutil
import pytest
from acceptance.services import CHIFFRE, START_SECONDS, Up, chiffre_up, command_environment

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


def test_ctrl_c_ends_everything_even_in_a_home_with_a_long_path(tmp_path: Path) -> None:
    """Broker, worker, trainers and API all end, and the exit status is 0.

    The socket of the broker moves to another folder if its path would exceed the kernel's limit of 108 bytes.
    """
    home = tmp_path / ("long" * 30)
    with chiffre_up(home) as up:
        socket_lies_elsewhere = not (home / "valkey" / "valkey.sock").exists()
        running = up.everything()
        names = {process.name() for process in running}
        status = up.interrupt()
        _, left = psutil.wait_procs(running, timeout=10)

    assert socket_lies_elsewhere
    assert "valkey-server" in names
    assert len(running) >= 4
    assert status == 0
    assert left == []


def test_it_is_ready_whatever_names_it_may_be_called_by(tmp_path: Path) -> None:
    """It is ready although it only accepts another name than its address, and HTTP goes through a proxy."""
    environment = {"CHIFFRE_ALLOWED_HOSTS": '["*.example.org"]', "http_proxy": "http://127.0.0.1:1", "no_proxy": ""}
    with chiffre_up(tmp_path / "home", "--host", "0.0.0.0", **environment) as up:
        url = up.url.replace("0.0.0.0", "127.0.0.1")
        named = httpx2.get(f"{url}/readyz", headers={"host": "chiffre.example.org"}, trust_env=False)
        other = httpx2.get(f"{url}/readyz", trust_env=False)

    assert (named.status_code, other.status_code) == (200, 400)


def test_sigterm_ends_everything_too(tmp_path: Path) -> None:
    """A service manager can stop it as Ctrl-C does."""
    with chiffre_up(tmp_path / "home") as up:
        running = up.everything()
        up.process.send_signal(signal.SIGTERM)
        up.process.wait(60)
        _, left = psutil.wait_procs(running, timeout=10)

    assert left == []


def test_what_it_started_ends_even_when_it_is_killed(tmp_path: Path) -> None:
    """After kill -9 no process is left."""
    with chiffre_up(tmp_path / "home") as up:
        running = up.everything()
        up.process.kill()
        up.process.wait()
        _, left = psutil.wait_procs(running, timeout=30)

    assert left == []


def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """The message names the port and the option."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = refused("--home", str(tmp_path / "home"), "--port", str(port))

    assert f"cannot listen on 127.0.0.1:{port}" in message
    assert "choose another port with --port" in message


def test_a_long_log_makes_way_for_another(tmp_path: Path) -> None:
    """Only the previous log is kept."""
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


def test_a_log_that_is_not_long_is_gone_on_with(tmp_path: Path) -> None:
    """The earlier lines stay."""
    log = tmp_path / "echo.log"
    log.write_text("before\n")
    service = Service("echo", ["echo", "started"], dict(os.environ), log)
    service.start()
    assert service.process is not None
    service.process.wait()

    assert log.read_text() == "before\nstarted\n"


def test_a_home_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The message is the same if the home comes from the environment."""
    (tmp_path / "file").write_text("no folder")

    assert "cannot be written" in refused("--home", str(tmp_path / "file" / "home"))
    assert f"{tmp_path}/file/home cannot be written" in refused(CHIFFRE_HOME=f"{tmp_path}/file/home")
