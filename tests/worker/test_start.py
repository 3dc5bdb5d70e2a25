"""The quick start of a process: what it runs, and what it leaves out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


def started(*arguments: str) -> str:
    """Return the output of a module that was started quickly."""
    command = [sys.executable, "-m", "worker.start", *arguments]
    return subprocess.run(command, capture_output=True, check=True, text=True).stdout


def test_modules_and_packages_get_their_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package runs its `__main__`, as with `python -m`."""
    (tmp_path / "package").mkdir()
    for path in ("module.py", "package/__main__.py"):
        (tmp_path / path).write_text("import sys\ndef main(): print(sys.argv[1:])")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    assert [started(name, "a", "b") for name in ("module", "package")] == ["['a', 'b']\n"] * 2


def test_garbage_is_collected_once_the_module_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that never collected would grow without end."""
    (tmp_path / "told.py").write_text("import gc\ndef main(): print(gc.isenabled(), gc.get_freeze_count() > 0)")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")

    assert started("told") == "True True\n"


def test_plots_load_neither_statistics_nor_scikit_learn() -> None:
    """They would double the time of the analyst's start; only an analysis needs them."""
    code = "import sys, worker.analyst; print({'scipy.stats', 'scipy.special', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)

    assert done.stdout == "set()\n"
