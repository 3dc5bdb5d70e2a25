"""The demonstration, as `make demo` runs it and with a smaller job."""

import io
import re
import subprocess

import psutil
import pytest
from acceptance.services import CHIFFRE, command_environment
from rich.console import Console

from api.cli.demo import SPEC, run_demo

LONGEST = 600  # seconds, on a machine that also runs other tests
OURS = ("valkey-server", "worker.trainer", "worker.queue", "api.main:create_app")


def processes_of_demos() -> set[int]:
    """Return the processes of every running demonstration."""
    return {
        process.pid
        for process in psutil.process_iter(["cmdline", "environ"])
        if "chiffre-demo-" in str((process.info["environ"] or {}).get("CHIFFRE_HOME", ""))
        and any(name in " ".join(process.info["cmdline"] or []) for name in OURS)
    }


def printed_accuracy(printed: str) -> float:
    """Return the accuracy that a demonstration printed below eight images with their answers."""
    accuracy = re.search(r"Test accuracy on 7,000 images: ([\d.]+) %", printed)
    assert accuracy, printed
    assert len(re.findall(r"\d \([\d.]+ %\), label \d", printed)) == 8
    return float(accuracy[1])


@pytest.mark.long
def test_the_demo_serves_what_it_trained_and_leaves_nothing_behind() -> None:
    """With one trial of one epoch it does all that `make demo` does."""
    before = processes_of_demos()
    console = Console(file=io.StringIO(), width=160)
    version = run_demo(console, {**SPEC, "budget": {"trials": 1, "epochs": 1}, "lanes": 1})
    printed = console.file.getvalue()  # type: ignore[attr-defined]

    assert printed_accuracy(printed) == pytest.approx(100 * version["test_accuracy"], abs=0.005)
    assert printed_accuracy(printed) > 90
    assert processes_of_demos() <= before


@pytest.mark.soak
def test_the_demo_reaches_a_good_accuracy() -> None:
    """`chiffre demo` reaches 98.5 % on the test images."""
    before = processes_of_demos()
    done = subprocess.run(
        [CHIFFRE, "demo"], env=command_environment(), capture_output=True, text=True, timeout=LONGEST, check=False
    )

    assert done.returncode == 0, done.stderr
    assert printed_accuracy(done.stdout) >= 98.5
    assert processes_of_demos() <= before
