"""The layers: api → worker → ml, and what may not be imported where."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("ml", "worker", "api")  # each may import itself and what stands before it
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


def modules() -> list[Path]:
    """Every source file of the three layers."""
    return [path for layer in LAYERS for path in (ROOT / layer).rglob("*.py")]


def imported(path: Path) -> Iterator[str]:
    """The names of the modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            yield node.module or ""


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_from_api_over_worker_to_ml(path: Path) -> None:
    """A module imports its own layer and lower ones only."""
    layer = path.relative_to(ROOT).parts[0]
    above = set(LAYERS[LAYERS.index(layer) + 1 :])

    assert not {name for name in imported(path) if name.split(".")[0] in above}


@pytest.mark.parametrize("path", list((ROOT / "ml").rglob("*.py")), ids=lambda path: path.name)
def test_the_science_knows_no_environment_database_queue_or_http(path: Path) -> None:
    """Ml is usable alone."""
    foreign = {"os.environ", "sqlalchemy", "sqlmodel", "celery", "redis", "fastapi", "starlette", "pydantic_settings"}

    assert not {name for name in imported(path) if name.split(".")[0] in foreign}
    assert "environ" not in path.read_text()


def test_only_the_settings_read_the_environment() -> None:
    """One module decides what the environment means; the client's URL and what children inherit are the exceptions."""
    readers = {str(p.relative_to(ROOT)) for p in modules() if "os.environ" in p.read_text()}

    assert readers == {"api/client.py", "worker/local.py", "worker/supervision/trainer_pool.py"}


@pytest.mark.long
@pytest.mark.parametrize("module", TORCH_FREE)
def test_what_must_start_fast_imports_nothing_heavy(module: str) -> None:
    """The API, the worker's own process and the command import neither torch nor optuna."""
    program = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert done.stdout.strip() == "[]"


def test_nothing_is_unpickled_but_the_reports_own_file() -> None:
    """torch.load stands in one place, with weights_only; pickle.load nowhere."""
    users = {str(p.relative_to(ROOT)) for p in modules() if "torch.load(" in p.read_text()}

    assert users == {"ml/images/report_pickle.py"}
    assert "weights_only=True" in (ROOT / "ml/images/report_pickle.py").read_text()
    assert not [p for p in modules() if "pickle.load" in p.read_text()]
