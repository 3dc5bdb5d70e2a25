"""Rules of the architecture that import-linter cannot check: environment, folders, start-up imports and unpickling.

The order of layers and folders is in pyproject.toml, and `make lint` checks the imports against it.
"""

import ast
import subprocess
import sys
import tomllib
from collections import Counter
from importlib.metadata import distributions
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
LAYERS = ("ml", "worker", "api")
HEAVY = ("torch", "optuna", "scipy", "sklearn", "onnx", "plotly", "pandas")
TORCH_FREE = (
    "api.main",
    "worker.tasks",
    "worker.queue",
    "worker.supervision.notify",
    "worker.local",
    "api.cli.app",
    "ml.specs",
)
FULL_FOLDER = 20  # files; in a folder with more, a reader does not see which belong together


def modules() -> dict[str, str]:
    """Return the text of every source file of the three layers, by its path."""
    paths = [path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")]
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in paths}


def test_every_pinned_package_runs_on_the_oldest_python() -> None:
    """pyproject.toml asks for Python 3.11. Debian 12 has 3.11.2, and a package may ask for a later one."""
    oldest = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"].removeprefix(">=")
    refused = {
        found.name: found.metadata["Requires-Python"]
        for found in distributions()
        if not SpecifierSet(found.metadata["Requires-Python"] or "").contains(f"{oldest}.0")
    }

    assert refused == {}


def test_only_the_settings_read_the_environment() -> None:
    """One module reads the environment; the exceptions are the client's URL and the environment of child processes."""
    readers = {path for path, text in modules().items() if "os.environ" in text or "getenv" in text}

    assert readers == {"api/client.py", "worker/local.py", "worker/supervision/trainer_pool.py"}


def test_every_import_is_absolute() -> None:
    """A file can then move within its layer without new imports."""
    relative = [
        f"{path}:{node.lineno}"
        for path, text in modules().items()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and node.level
    ]

    assert not relative


def test_no_folder_holds_more_files_than_a_reader_can_survey() -> None:
    """A folder has at most twenty files; migrations are the exception."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    files = Counter(str(Path(path).parent) for path in listed)
    kept_apart = {"alembic/versions"}

    assert not {folder: n for folder, n in files.items() if n > FULL_FOLDER and folder not in kept_apart}


@pytest.mark.long
@pytest.mark.parametrize("module", TORCH_FREE)
def test_modules_that_must_start_fast_import_no_heavy_package(module: str) -> None:
    """The API, the worker's own process and the command import no torch, optuna or similar package."""
    program = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.strip() == "[]"


def test_only_the_studys_own_file_is_unpickled() -> None:
    """One module calls torch.load, with weights_only, and none calls pickle.load."""
    texts = modules()

    assert {path for path, text in texts.items() if "torch.load(" in text} == {"ml/images/report_pickle.py"}
    assert "weights_only=True" in texts["ml/images/report_pickle.py"]
    assert not [path for path, text in texts.items() if "pickle.load" in text]
