"""Faults of workers and of the database, where the database is Postgres."""

from threading import Thread
from time import monotonic

import pytest
from acceptance.faults.cluster import LEASE_SECONDS, Cluster
from acceptance.faults.history import verdict
from acceptance.faults.processes import Process
from acceptance.faults.waiting import until
from acceptance.faults.witness import Witness
from acceptance.faults.work import moment, quick, steady

DATABASE = "postgres"
SEEDS = range(1)  # `make chaos` draws more
GRACE = 20.0  # seconds beyond a lease in which another worker's trainer has started, on a busy machine


def holder(cluster: Cluster, job_id: str) -> Process:
    """The worker that trains a job of one pack, once it has measured something."""
    until(lambda: cluster.measured(job_id) >= 3 and cluster.holder(job_id), "three epochs are measured")
    worker = cluster.holder(job_id)
    assert worker is not None
    return worker


def taken_from(cluster: Cluster, worker: Process, job_id: str) -> bool:
    """Whether another worker holds the job."""
    return cluster.holder(job_id) not in (worker, None)


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_the_pack_of_a_killed_worker_goes_to_another(cluster: Cluster, witness: Witness, seed: int) -> None:
    """Kill -9 of a worker: its trainer ends by itself, and when the lease is over another goes on with the trials."""
    with cluster.gate(2 + moment(seed, 30)):
        job_id = witness.post(steady(trials=2, epochs=60, seed=seed))
        worker = holder(cluster, job_id)
        orphans = cluster.trainers(worker)
    died = monotonic()
    worker.kill()
    until(lambda: not any(trainer.is_running() for trainer in orphans), "the trainer has ended")
    until(lambda: taken_from(cluster, worker, job_id), "another worker claims the pack")
    took = monotonic() - died

    assert took < LEASE_SECONDS + GRACE
    assert verdict(cluster, witness) == []
    assert witness.job(job_id)["trials"] == {"completed": 2}


@pytest.mark.long
def test_a_worker_that_slept_past_its_lease_writes_nothing_more(cluster: Cluster, witness: Witness) -> None:
    """Stopped by SIGSTOP until another has claimed its pack and measured, then let go on: its writes are refused."""
    with cluster.gate(3):
        job_id = witness.post(steady(trials=1, epochs=60, lanes=1))
        worker = holder(cluster, job_id)
        cluster.pause_worker(worker)
    until(lambda: taken_from(cluster, worker, job_id), "another worker claims the pack")
    until(lambda: cluster.measured(job_id, lease_epoch=2), "the other worker measures an epoch")
    worker.resume()

    assert verdict(cluster, witness) == []
    assert witness.job(job_id)["trials"] == {"completed": 1}


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_a_restart_of_postgres_loses_nothing(cluster: Cluster, witness: Witness, seed: int) -> None:
    """`pg_ctl restart -m immediate` in the middle of trials: 503 meanwhile, and every job is done."""
    epochs = moment(seed, 20)
    with cluster.gate(epochs):
        job_id = witness.post(steady(seed=seed))
        until(lambda: cluster.measured(job_id) >= epochs, "so many epochs are measured")
        restart = Thread(target=cluster.restart_postgres)
        restart.start()
    while restart.is_alive():
        witness.ask("GET", "/jobs")
        witness.offer(quick())
    restart.join()

    assert verdict(cluster, witness) == []
    assert witness.job(job_id)["trials"] == {"completed": 4}
