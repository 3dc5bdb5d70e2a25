"""The demonstration, as `make demo` runs it."""

import re
import subprocess

import psutil
import pytest
from acceptance.services import CHIFFRE, command_environment

LONGEST = 600  # seconds, on a machine that also runs other tests


@pytest.mark.long
def test_the_demo_serves_a_good_network_and_leaves_nothing_behind() -> None:
    """The demo reaches 98.5 % on the test images, prints eight of them with their answers, and ends every process."""
    before = {process.pid for process in psutil.process_iter()}
    done = subprocess.run(
        [CHIFFRE, "demo"], env=command_environment(), capture_output=True, text=True, timeout=LONGEST, check=False
    )
    ours = ("valkey-server", "worker.trainer", "worker.queue", "api.main:create_app")
    left = [
        command
        for process in psutil.process_iter(["pid", "cmdline", "environ"])
        if process.pid not in before
        and "chiffre-demo-" in str((process.info["environ"] or {}).get("CHIFFRE_HOME", ""))
        and any(name in (command := " ".join(process.info["cmdline"] or [])) for name in ours)
    ]
    accuracy = re.search(r"Test accuracy on 7,000 images: ([\d.]+) %", done.stdout)

    assert done.returncode == 0, done.stderr
    assert accuracy, done.stdout
    assert float(accuracy[1]) >= 98.5
    assert len(re.findall(r"\d \([\d.]+ %\), label \d", done.stdout)) == 8
    assert left == []
