"""The results, as JSON beside the hardware and the versions that they were taken with."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.machine import hardware, versions

RESULTS = Path(__file__).parent / "results"


def taken() -> dict[str, Any]:
    """When and on what something was measured."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {"taken": now, "hardware": hardware(), "versions": versions()}


def write(path: Path, results: dict[str, Any]) -> None:
    """Write results whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(results, indent=1) + "\n")
    part.replace(path)


def read(path: Path) -> dict[str, Any]:
    """What was written; nothing where nothing was."""
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found
