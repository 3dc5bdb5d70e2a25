"""Virtual environments for what others serve with, made once under `.bench/` and kept."""

import os
import subprocess
import sys
from pathlib import Path

import torch

KEPT = Path(__file__).parents[2] / ".bench"
TORCH = f"torch=={torch.__version__.partition('+')[0]}"  # the same release as ours
SHARED = ["numpy", "safetensors", "uvloop", "httptools"]  # the last two: what uvicorn is fastest with
INSTALL_SECONDS = 1800


class NotInstalled(Exception):
    """A package cannot be had here."""


def programs(package: str) -> Path:
    """The folder with `python` of the package's own environment; NotInstalled where pip fails."""
    folder = KEPT / package
    made = folder / "made"  # written last
    if not made.exists():
        print(f"Installing {package} into {folder} …", flush=True)
        _call([sys.executable, "-m", "venv", "--clear", str(folder)])
        index = os.environ.get("TORCH_INDEX")  # as the README has it: CPU builds of torch
        options = ["--extra-index-url", index] if index else []
        _call([str(folder / "bin" / "pip"), "install", "--quiet", *options, TORCH, package, *SHARED])
        made.touch()
    return folder / "bin"


def version(package: str) -> str:
    """Which release of the package was installed."""
    program = f"from importlib.metadata import version; print(version({package!r}))"
    return _call([str(programs(package) / "python"), "-c", program]).strip()


def _call(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise NotInstalled(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout
