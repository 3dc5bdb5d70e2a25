"""The Chromium for tests of the page: an installed one, or Debian's package if it may be installed."""

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOCK = Path(tempfile.gettempdir(), "chiffre-chromium.lock")
NEEDED = "THE PAGE WAS NOT TESTED: no Chromium is installed"


class NoChromium(Exception):
    """No Chromium is installed or can be installed; the text says what to do."""


def chromium() -> str:
    """Return the path of a Chromium, and install one if necessary and possible.

    Raises:
        NoChromium: if there is none.
    """
    found = _installed()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        found = _fetched()
    if found is None:
        raise NoChromium(f"{NEEDED}, and only root can; on Debian: sudo apt-get install chromium")
    return found


def _installed() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


def _fetched() -> str | None:
    """Install Debian's package and return its path; other processes wait meanwhile.

    Raises:
        NoChromium: if the installation fails.
    """
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (found := _installed()) is not None:
            return found
        for command in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
            done = subprocess.run(["apt-get", *command, "--quiet"], capture_output=True, text=True, check=False)
            if done.returncode:
                raise NoChromium(f"{NEEDED}, and apt-get {command[0]} failed: {done.stderr.strip()[-500:]}")
        return _installed()
