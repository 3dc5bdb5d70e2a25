"""Fixtures of the tests of faults: a cluster for each file, and a witness for each test."""

from collections.abc import Iterator

import pytest
from acceptance.faults.cluster import Cluster
from acceptance.faults.witness import Witness


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Yield a cluster with two workers, on the database that the file names in `DATABASE`."""
    with Cluster(request.module.DATABASE, size=2) as cluster:
        yield cluster


@pytest.fixture
def witness(cluster: Cluster) -> Iterator[Witness]:
    """Yield a user of the cluster; at the end, heal the cluster and cancel the test's remaining jobs."""
    with Witness(cluster.url) as witness:
        yield witness
        print(cluster.logs())
        cluster.heal()
        for job_id in witness.accepted:
            witness.cancel(job_id)
