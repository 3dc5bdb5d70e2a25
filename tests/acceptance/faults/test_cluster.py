"""The cluster itself: what it starts is real, and nothing of it stays behind."""

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
def test_no_process_and_no_file_is_left_of_a_cluster(kind: Kind) -> None:
    """Not even of one whose worker sleeps, whose orphaned trainer sleeps, and whose database is locked."""
    with Cluster(kind, size=2) as cluster, Witness(cluster.url) as witness:
        witness.post(quick())
        until(lambda: len(cluster.trainers()) == 2, "both trainers have started")
        running = cluster.everything()
        trees = {Path(process.cwd()) for process in cluster.trainers()}  # not an installed copy is tested
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
