"""Tests of the cluster itself: it starts real processes, and leaves none behind."""

from pathlib import Path

import psutil
import pytest
from acceptance.faults.cluster import Cluster, Kind
from acceptance.faults.processes import ROOT
from acceptance.faults.waiting import until
from acceptance.faults.witness import Witness
from acceptance.faults.work import quick


@pytest.mark.long
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_cluster_leaves_no_process_and_no_file(kind: Kind) -> None:
    """This holds even if a worker and an orphaned trainer are stopped, and the database is locked."""
    with Cluster(kind, size=2) as cluster, Witness(cluster.url) as witness:
        witness.post(quick())
        until(lambda: len(cluster.trainers()) == 2, "both trainers have started")
        running = cluster.everything()
        trees = {Path(process.cwd()) for process in cluster.trainers()}  # to check that no installed copy runs
        own = cluster.folders
        cluster.pause_worker(cluster.workers[0])
        cluster.pause_worker(cluster.workers[1])
        cluster.workers[1].kill()
        if kind == "sqlite":
            cluster.lock_sqlite(1.0)
    _, left = psutil.wait_procs(running, timeout=10)

    assert len(running) >= 6
    assert trees == {ROOT}
    assert left == []
    assert cluster.everything() == []
    assert [folder for folder in own if folder.exists()] == []
    assert len(own) == (1 if kind == "sqlite" else 2)
