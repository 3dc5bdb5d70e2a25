"""The schedule of the tests: tests of a module share databases, trainers and services, so they run in one process."""

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

MODULE = """
import pytest

@pytest.mark.parametrize("number", range(6))
def test_one(number, worker_id):
    print("ran by", worker_id)
"""
FOLDERS = ("tests/page/test_a.py", "tests/page/test_b.py", "tests/test_c.py", "tests/test_d.py")


def test_tests_of_a_module_run_in_one_process(tmp_path: Path) -> None:
    """With two processes, each module runs in one of them, and so does a folder whose modules share services."""
    for path in FOLDERS:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(MODULE)
    (tmp_path / "conftest.py").write_text("from support.scheduling import pytest_xdist_make_scheduler\n")
    (tmp_path / "pytest.ini").write_text(f"[pytest]\npythonpath = {Path(__file__).parent}\n")
    command = [sys.executable, "-m", "pytest", "-n", "2", "-v", "-p", "no:cacheprovider", "--import-mode=importlib"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    workers = defaultdict(set)
    for worker, path in re.findall(r"^\[(gw\d)\].* PASSED (\S+?)::", done.stdout, re.MULTILINE):
        workers[path].add(worker)

    assert set(workers) == set(FOLDERS), done.stdout + done.stderr
    assert all(len(found) == 1 for found in workers.values())
    assert workers[FOLDERS[0]] == workers[FOLDERS[1]]
    assert set.union(*workers.values()) == {"gw0", "gw1"}
