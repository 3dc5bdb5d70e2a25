"""Virtual environments for other servers, created once under `.bench/` and kept."""

import os
import subprocess
import sys
from pathlib import Path

import torch

KEPT = Path(__file__).parents[2] / ".bench"
TORCH = f"torch=={torch.__version__.partition('+')[0]}"  # the release that Chiffre uses
SHARED = ["numpy", "safetensors", "uvloop", "httptools"]  # uvicorn is fastest with the last two
INSTALL_SECONDS = 1800


class NotInstalled(Exception):
    """A package cannot be installed here."""


def programs(package: str) -> Path:
    """Return the folder with `python` of the package's environment, which is created if necessary.

    Raises:
        NotInstalled: if pip fails.
    """
    folder = KEPT / package
    made = folder / "made"  # written last, when the installation is complete
    if not made.exists():
        print(f"Installing {package} into {folder} …", flush=True)
        _call([sys.executable, "-m", "venv", "--clear", str(folder)])
        index = os.environ.get("TORCH_INDEX")  # for CPU builds of torch, as in the README
        options = ["--extra-index-url", index] if index else []
        _call([str(folder / "bin" / "pip"), "install", "--quiet", *options, TORCH, package, *SHARED])
        made.touch()
    return folder / "bin"


def version(package: str) -> str:
    """Return the installed release of the package."""
    program = f"from importlib.metadata import version; print(version({package!r}))"
    return _call([str(programs(package) / "python"), "-c", program]).strip()


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise NotInstalled(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout
