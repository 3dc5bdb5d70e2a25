"""Faults of workers and of the database, with Postgres as the database."""

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
GRACE = 20.0  # seconds after a lease, in which another worker claims the pack even on a busy machine


def holder(cluster: Cluster, job_id: str) -> Process:
    """Return the worker that trains a job of one pack, once it has measured three epochs."""
    until(lambda: cluster.measured(job_id) >= 3 and cluster.holder(job_id), "three epochs are measured")
    worker = cluster.holder(job_id)
    assert worker is not None
    return worker


def taken_from(cluster: Cluster, worker: Process, job_id: str) -> bool:
    """Return whether another worker holds the job."""
    return cluster.holder(job_id) not in (worker, None)


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_another_worker_takes_the_pack_of_a_killed_worker(cluster: Cluster, witness: Witness, seed: int) -> None:
    """The killed worker's trainer ends by itself. After the lease another worker continues the trials."""
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
def test_a_worker_that_was_stopped_past_its_lease_can_write_nothing(cluster: Cluster, witness: Witness) -> None:
    """SIGSTOP stops the worker until another one has claimed its pack and measured; its later writes are refused."""
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
    """During `pg_ctl restart -m immediate` in the middle of trials requests may get 503; every job is done."""
    epochs = moment(seed, 20)
    with cluster.gate(epochs):
        job_id = witness.post(steady(seed=seed))
        until(lambda: cluster.measured(job_id) >= epochs, "enough epochs are measured")
        restart = Thread(target=cluster.restart_postgres)
        restart.start()
    while restart.is_alive():
        witness.ask("GET", "/jobs")
        witness.offer(quick())
    restart.join()

    assert verdict(cluster, witness) == []
    assert witness.job(job_id)["trials"] == {"completed": 4}
