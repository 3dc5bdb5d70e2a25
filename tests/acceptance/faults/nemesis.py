"""A nemesis: one fault after another, drawn from a seed, while jobs are worked on."""

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
from acceptance.faults.work import steady

SECONDS = 12.0  # of trouble a seed

Fault = Callable[["Nemesis"], None]


class Nemesis:
    """One round of trouble; what it does follows from its seed alone, when it does it from the machine too."""

    def __init__(self, cluster: Cluster, witness: Witness, seed: int) -> None:
        self.cluster = cluster
        self.witness = witness
        self.random = Random(seed)

    def job(self) -> str:
        """One of the jobs."""
        return self.random.choice(self.witness.accepted)

    def rage(self, seconds: float) -> None:
        """Post jobs and, once one is trained, break things for so long; then mend them all."""
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
        """Jobs of several kinds: one with a pruner that compares, one that stops early, one with narrow packs."""
        pruned: dict[str, Any] = {
            "sampler": {"name": "tpe", "n_startup_trials": 3},
            "pruner": {"name": "median", "n_startup_trials": 2},
        }
        self.witness.post(steady(trials=8, epochs=20, seed=self.random.randrange(1000), **pruned))
        self.witness.post(steady(trials=4, epochs=40, early_stopping={"patience": 2, "min_delta": 0.001}, lanes=3))
        self.witness.post(steady(trials=3, epochs=15, lanes=1, seed=self.random.randrange(1000)))


def kill_trainer(nemesis: Nemesis) -> None:
    """Kill -9 of a trainer."""
    if trainers := nemesis.cluster.trainers():
        with suppress(psutil.NoSuchProcess):
            nemesis.random.choice(trainers).kill()


def kill_worker(nemesis: Nemesis) -> None:
    """Kill -9 of a worker; its trainer must end by itself."""
    nemesis.random.choice(nemesis.cluster.workers).kill()


def pause_worker(nemesis: Nemesis) -> None:
    """A worker sleeps with its trainer, perhaps past its lease."""
    nemesis.cluster.pause_worker(nemesis.random.choice(nemesis.cluster.workers))
    sleep(nemesis.random.uniform(0, 1.5 * nemesis.cluster.lease_seconds))


def kill_api(nemesis: Nemesis) -> None:
    """Kill -9 of the API."""
    nemesis.cluster.api.kill()


def kill_broker(nemesis: Nemesis) -> None:
    """Kill -9 of the broker."""
    nemesis.cluster.broker.kill()


def pause_broker(nemesis: Nemesis) -> None:
    """The broker says nothing more."""
    nemesis.cluster.broker.pause()


def flush_broker(nemesis: Nemesis) -> None:
    """The broker forgets everything."""
    if nemesis.cluster.broker_answers():
        nemesis.cluster.flush_broker()


def ring(nemesis: Nemesis) -> None:
    """Fifty doorbells for nothing."""
    if nemesis.cluster.broker_answers():
        nemesis.cluster.ring(50)


def lock_sqlite(nemesis: Nemesis) -> None:
    """Another process holds the database's lock."""
    nemesis.cluster.lock_sqlite(nemesis.random.uniform(0.5, 1.25 * nemesis.cluster.lease_seconds))


def restart_postgres(nemesis: Nemesis) -> None:
    """The database is gone for a moment, and every connection with it."""
    nemesis.cluster.restart_postgres()


def cancel(nemesis: Nemesis) -> None:
    """Somebody cancels a job."""
    nemesis.witness.cancel(nemesis.job())


def offer(nemesis: Nemesis) -> None:
    """Somebody posts a job, and does not try again where nobody answers."""
    nemesis.witness.offer(steady(trials=2, epochs=15, seed=nemesis.random.randrange(1000)))


def pause_job(nemesis: Nemesis) -> None:
    """Somebody pauses a job; it is resumed at the latest when all is mended."""
    nemesis.witness.ask("POST", f"/jobs/{nemesis.job()}/pause")


def resume_job(nemesis: Nemesis) -> None:
    """Somebody resumes a job, paused or not."""
    nemesis.witness.ask("POST", f"/jobs/{nemesis.job()}/resume")


def extend(nemesis: Nemesis) -> None:
    """Somebody raises a job's budget, perhaps one that has completed."""
    trials = nemesis.random.randrange(8, 12)
    nemesis.witness.ask("PATCH", f"/jobs/{nemesis.job()}", {"budget": {"trials": trials}})


def enqueue(nemesis: Nemesis) -> None:
    """Somebody tries a configuration."""
    rate = nemesis.random.uniform(1e-3, 1e-2)
    nemesis.witness.ask("POST", f"/jobs/{nemesis.job()}/trials", {"params": {"learning_rate": rate}})


def cancel_trial(nemesis: Nemesis) -> None:
    """Somebody cancels a trial, which may have ended or not exist."""
    nemesis.witness.ask("POST", f"/jobs/{nemesis.job()}/trials/{nemesis.random.randrange(4)}/cancel")


def retry(nemesis: Nemesis) -> None:
    """Somebody wants a trial tried again, which may not have failed."""
    nemesis.witness.ask("POST", f"/jobs/{nemesis.job()}/trials/{nemesis.random.randrange(4)}/retry")


COMMON: list[Fault] = [kill_trainer, kill_worker, pause_worker, kill_api, kill_broker, pause_broker, flush_broker]
COMMON += [ring, cancel, offer, pause_job, resume_job, extend, enqueue, cancel_trial, retry]
FAULTS: dict[Kind, list[Fault]] = {"sqlite": [*COMMON, lock_sqlite], "postgres": [*COMMON, restart_postgres]}


def trouble(kind: Kind, seed: int, seconds: float) -> list[str]:
    """What the history checker finds after so many seconds of trouble on a cluster with two workers."""
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
