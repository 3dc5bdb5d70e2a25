"""A nemesis: it causes one random fault after another, drawn from a seed, while jobs run."""

from collections.abc import Callable
from contextlib import suppress
from random import Random
from time import monotonic, sleep
from typing import Any

import psutil
from acceptance.faults.cluster import Cluster, Kind
from acceptance.faults.history import verdict
from acceptance.faults.waiting import PATIENCE, until
from acceptance.faults.witness import Witness
from acceptance.faults.work import SPACE, steady

SECONDS = 12.0  # of faults for each seed

Fault = Callable[["Nemesis"], None]


class Nemesis:
    """One round of faults. The seed alone decides the faults; their times depend on the machine too."""

    def __init__(self, cluster: Cluster, witness: Witness, seed: int) -> None:
        self.cluster = cluster
        self.witness = witness
        self.random = Random(seed)

    def job(self) -> str:
        """Return the id of one of the accepted jobs."""
        return self.random.choice(self.witness.accepted)

    def rage(self, seconds: float) -> None:
        """Post jobs, cause faults for this time once a job trains, and then repair everything."""
        self._post()
        until(lambda: self.cluster.measured(self.witness.accepted[0]), "an epoch is measured")
        begun = monotonic()
        while (at := monotonic() - begun) < seconds:
            fault = self.random.choice(FAULTS[self.cluster.kind])
            print(f"  {at:5.1f} s  {fault.__name__}", flush=True)
            fault(self)
            sleep(self.random.uniform(0.1, 1.5))
            if self.random.random() < 0.5:
                self.cluster.heal()
        self.cluster.heal()
        for job_id in self.witness.accepted:
            self.witness.resume(job_id)

    def _post(self) -> None:
        """Post three kinds of job: one with a pruner, one with early stopping, and one with packs of one lane."""
        pruned: dict[str, Any] = {
            "sampler": {"name": "tpe", "n_startup_trials": 3},
            "pruner": {"name": "median", "n_startup_trials": 2},
        }
        long: dict[str, Any] = {"search_space": {**SPACE, "batch_size": 8}}  # so that most faults find a job that runs
        stopped = {"early_stopping": {"patience": 2, "min_delta": 0.001}}
        self.witness.post(steady(trials=8, epochs=20, seed=self.random.randrange(1000), **pruned, **long))
        self.witness.post(steady(trials=4, epochs=40, lanes=3, **stopped, **long))
        self.witness.post(steady(trials=3, epochs=15, lanes=1, seed=self.random.randrange(1000), **long))


def kill_trainer(nemesis: Nemesis) -> None:
    """Kill a trainer with signal 9."""
    if trainers := nemesis.cluster.trainers():
        with suppress(psutil.NoSuchProcess):
            nemesis.random.choice(trainers).kill()


def kill_worker(nemesis: Nemesis) -> None:
    """Kill a worker with signal 9; its trainer must end by itself."""
    nemesis.random.choice(nemesis.cluster.workers).kill()


def pause_worker(nemesis: Nemesis) -> None:
    """Stop a worker and its trainer, perhaps for longer than the lease."""
    nemesis.cluster.pause_worker(nemesis.random.choice(nemesis.cluster.workers))
    sleep(nemesis.random.uniform(0, 1.5 * nemesis.cluster.lease_seconds))


def kill_api(nemesis: Nemesis) -> None:
    """Kill the API with signal 9."""
    nemesis.cluster.api.kill()


def kill_broker(nemesis: Nemesis) -> None:
    """Kill the broker with signal 9."""
    nemesis.cluster.broker.kill()


def pause_broker(nemesis: Nemesis) -> None:
    """Stop the broker, so that it does not answer."""
    nemesis.cluster.broker.pause()


def flush_broker(nemesis: Nemesis) -> None:
    """Delete all data of the broker."""
    if nemesis.cluster.broker_answers():
        nemesis.cluster.flush_broker()


def ring(nemesis: Nemesis) -> None:
    """Send fifty messages that say there is work."""
    if nemesis.cluster.broker_answers():
        nemesis.cluster.ring(50)


def lock_sqlite(nemesis: Nemesis) -> None:
    """Hold the database's lock from outside the cluster."""
    nemesis.cluster.lock_sqlite(nemesis.random.uniform(0.5, 1.25 * nemesis.cluster.lease_seconds))


def restart_postgres(nemesis: Nemesis) -> None:
    """Restart the database, which breaks every connection."""
    nemesis.cluster.restart_postgres()


def cancel(nemesis: Nemesis) -> None:
    """Cancel a job."""
    nemesis.witness.cancel(nemesis.job())


def offer(nemesis: Nemesis) -> None:
    """Post a job once, without a retry if there is no answer."""
    nemesis.witness.offer(steady(trials=2, epochs=15, seed=nemesis.random.randrange(1000)))


def pause_job(nemesis: Nemesis) -> None:
    """Pause a job; `rage` resumes it at the latest."""
    nemesis.witness.ask("POST", f"/jobs/{nemesis.job()}/pause")


def resume_job(nemesis: Nemesis) -> None:
    """Resume a job, paused or not."""
    nemesis.witness.ask("POST", f"/jobs/{nemesis.job()}/resume")


def extend(nemesis: Nemesis) -> None:
    """Raise the budget of a job, which may have completed."""
    trials = nemesis.random.randrange(8, 12)
    nemesis.witness.ask("PATCH", f"/jobs/{nemesis.job()}", {"budget": {"trials": trials}})


def enqueue(nemesis: Nemesis) -> None:
    """Enqueue a configuration."""
    rate = nemesis.random.uniform(1e-3, 1e-2)
    nemesis.witness.ask("POST", f"/jobs/{nemesis.job()}/trials", {"params": {"learning_rate": rate}})


def cancel_trial(nemesis: Nemesis) -> None:
    """Cancel a trial, which may have ended or may not exist."""
    nemesis.witness.ask("POST", f"/jobs/{nemesis.job()}/trials/{nemesis.random.randrange(4)}/cancel")


def retry(nemesis: Nemesis) -> None:
    """Retry a trial, which may not have failed."""
    nemesis.witness.ask("POST", f"/jobs/{nemesis.job()}/trials/{nemesis.random.randrange(4)}/retry")


COMMON: list[Fault] = [kill_trainer, kill_worker, pause_worker, kill_api, kill_broker, pause_broker, flush_broker]
COMMON += [ring, cancel, offer, pause_job, resume_job, extend, enqueue, cancel_trial, retry]
FAULTS: dict[Kind, list[Fault]] = {"sqlite": [*COMMON, lock_sqlite], "postgres": [*COMMON, restart_postgres]}


def trouble(kind: Kind, seed: int, seconds: float) -> list[str]:
    """Return the violations after this many seconds of faults on a cluster with two workers."""
    print(f"nemesis: seed {seed} on {kind}", flush=True)
    with Cluster(kind, size=2) as cluster, Witness(cluster.url) as witness:
        try:
            Nemesis(cluster, witness, seed).rage(seconds)
            found = verdict(cluster, witness, 2 * PATIENCE)
        except BaseException:
            print(cluster.logs())
            raise
        if found:
            print(cluster.logs())
        return found
