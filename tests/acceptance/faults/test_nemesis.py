"""Random faults from a seed, on a cluster with two workers and several jobs."""

import pytest
from acceptance.faults.nemesis import SECONDS, trouble


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))  # one on each database; `make chaos` draws more
def test_no_trouble_breaks_a_promise(seed: int) -> None:
    """Whatever is killed, stopped, locked or cancelled: every accepted job has a history without a violation."""
    assert trouble("postgres" if seed % 2 else "sqlite", seed, SECONDS) == []
