"""The results of benchmarks, as JSON with the hardware and the versions of packages."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import hardware, versions

RESULTS = Path(__file__).parent / "results"


def taken() -> dict[str, Any]:
    """Return the time, hardware and versions of a measurement."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"taken": now, "hardware": hardware(), "versions": versions()}


def write(path: Path, results: dict[str, Any]) -> None:
    """Write results so that the file is either complete or unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(results, indent=1) + "\n")
    partial.replace(path)


def read(path: Path) -> dict[str, Any]:
    """Return the results in a file, or an empty dictionary if there is none."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
