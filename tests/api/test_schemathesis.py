"""The API under requests that are generated from its OpenAPI document."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.worker_tools import Work

from tests.api.tools import publish

HERE = Path(__file__).parent
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "4")  # requests per operation and phase; `make fuzz` draws more
SECONDS = 1500


@pytest.mark.long
@pytest.mark.timeout(SECONDS + 60)
def test_the_api_passes_every_check_of_schemathesis(url: str, work: Work, environment: Path, tmp_path: Path) -> None:
    """The checks cover all phases and every operation, except the endless stream of events."""
    for model in ("perceptron", "cnn"):
        publish(work, environment, model)
    command = [str(Path(sys.executable).parent / "st"), "--config-file", str(HERE / "schemathesis.toml"), "run"]
    options = ["--exclude-path", "/jobs/{job_id}/events", "--suppress-health-check", "all", "--no-color"]
    bounds = ["--max-examples", EXAMPLES, "--request-timeout", "30", "--generation-deterministic"]
    done = subprocess.run(
        [*command, f"{url}/openapi.json", *options, *bounds],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )

    assert done.returncode == 0, done.stdout[-8000:]
    assert "Selected: " in done.stdout
