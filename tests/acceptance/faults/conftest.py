"""What the tests of faults share: a cluster a file, and a witness a test."""

from collections.abc import Iterator

import pytest
from acceptance.faults.cluster import Cluster
from acceptance.faults.witness import Witness


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster with two workers on the database that the file names in `DATABASE`, whole again after each test."""
    with Cluster(request.module.DATABASE, size=2) as cluster:
        yield cluster


@pytest.fixture
def witness(cluster: Cluster) -> Iterator[Witness]:
    """A user of the cluster; what is left of the test's jobs is cancelled at its end."""
    with Witness(cluster.url) as witness:
        yield witness
        print(cluster.logs())
        cluster.heal()
        for job_id in witness.accepted:
            witness.cancel(job_id)
