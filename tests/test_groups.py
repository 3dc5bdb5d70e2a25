"""The tests themselves: those that share a cluster, a search or a browser run in one process."""

import pytest


@pytest.mark.xdist_group("together")
def test_tests_of_a_group_run_in_one_process(request: pytest.FixtureRequest, worker_id: str) -> None:
    """Pytest-xdist sends tests to one process by what stands behind their ids; alone, all run in one."""
    assert worker_id == "master" or request.node.nodeid.endswith("@together")
