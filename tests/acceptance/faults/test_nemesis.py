"""Random faults from a seed, on a cluster with two workers and several jobs."""

import pytest
from acceptance.faults.nemesis import SECONDS, trouble


@pytest.mark.long
@pytest.mark.parametrize("seed", [1])  # on Postgres; `make chaos` draws more, on both databases
def test_random_faults_violate_no_rule_of_histories(seed: int) -> None:
    """After kills, stops, locks and cancellations, every accepted job has a history without a violation."""
    assert trouble("postgres" if seed % 2 else "sqlite", seed, SECONDS) == []
