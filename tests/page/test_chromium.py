"""The browser of the page's tests is found, installed, or reported as missing."""

import os
import shutil
import subprocess
from subprocess import CompletedProcess
from typing import Any

import pytest

from benchmarks.chromium import NoChromium, chromium


def test_without_a_browser_the_error_says_that_the_page_was_not_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without root, the error names the command that root must run."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(NoChromium, match=r"THE PAGE WAS NOT TESTED: .* sudo apt-get install chromium"):
        chromium()


def test_root_installs_debians_chromium(monkeypatch: pytest.MonkeyPatch) -> None:
    """Apt-get updates its lists and installs Chromium, which is then found."""
    ran: list[list[str]] = []

    def run(command: list[str], **_: Any) -> CompletedProcess[str]:
        ran.append(command)
        return CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(
        shutil, "which", lambda name: f"/usr/bin/{name}" if name == "apt-get" or len(ran) == 2 else None
    )

    assert chromium() == "/usr/bin/chromium"
    assert [command[1] for command in ran] == ["update", "install"]


def test_a_failed_installation_gives_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error quotes what apt-get wrote."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: CompletedProcess(command, 100, "", "no network"))
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)

    with pytest.raises(NoChromium, match=r"NOT TESTED: .* apt-get update failed: no network"):
        chromium()
