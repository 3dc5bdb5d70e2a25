"""Faults of trainers, the API, the broker and the database's lock, where the database is SQLite."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from runpy import run_path
from threading import Thread
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import pytest
from acceptance.faults.cluster import Cluster
from acceptance.faults.history import verdict
from acceptance.faults.waiting import PATIENCE, until
from acceptance.faults.witness import Witness
from acceptance.faults.work import moment, quick, steady
from support.gate import SABOTAGE

from ml.layers import Layer
from ml.networks import networks

# One cluster for all; `make test` kills a trainer in tests/worker/supervision/test_supervisor.py.
pytestmark = pytest.mark.long

DATABASE = "sqlite"
SEEDS = range(1)  # `make chaos` draws more
PROMPT = 2.0  # seconds in which a request is answered, whatever the broker does
GIB = 1 << 30


def slowest_post(witness: Witness) -> float:
    """The seconds that the slowest POST took."""
    return max(answer.seconds for answer in witness.answers if answer.request == "POST /jobs/tune")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_trainer_costs_time_and_nothing_else(cluster: Cluster, witness: Witness, seed: int) -> None:
    """Kill -9 of a trainer in the middle of its pack: every trial ends completed all the same."""
    epochs = moment(seed, 20)
    with cluster.gate(epochs):
        job_id = witness.post(steady(seed=seed))
        until(lambda: cluster.measured(job_id) >= epochs, "so many epochs are measured")
        trainers = cluster.trainers(cluster.holder(job_id))
    for trainer in trainers:
        trainer.kill()

    assert verdict(cluster, witness) == []
    assert witness.job(job_id)["trials"] == {"completed": 4}


def test_a_trial_whose_trainer_was_killed_measures_what_it_would_have(cluster: Cluster, witness: Witness) -> None:
    """The same job twice, once with a kill -9: the same losses and accuracies, to the last bit."""
    with cluster.gate(20):
        jobs = [witness.post(steady(trials=1, epochs=40, lanes=1)) for _ in range(2)]
        until(lambda: cluster.measured(jobs[1]) >= 20, "twenty epochs are measured")
        for trainer in cluster.trainers(cluster.holder(jobs[1])):
            trainer.kill()
    found = verdict(cluster, witness)
    fields = ("epoch", "images_seen", "train_loss", "val_loss", "val_accuracy")
    trials = [witness.get(f"/jobs/{job_id}/trials/0")["measurements"] for job_id in jobs]
    rows = [[tuple(m[name] for name in fields) for m in measurements] for measurements in trials]

    assert found == []
    assert len(rows[0]) == 40
    assert rows[0] == rows[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_job_that_was_accepted_outlives_the_api(cluster: Cluster, witness: Witness, seed: int) -> None:
    """Kill -9 of the API while two users post jobs: what was answered 202 is done, and nobody reads a 500."""
    users = [Thread(target=lambda: [witness.post(quick()) for _ in range(12)]) for _ in range(2)]
    for user in users:
        user.start()
    until(lambda: len(witness.accepted) >= moment(seed, 12), "so many jobs are accepted")
    cluster.api.kill()
    cluster.restart_api()
    for user in users:
        user.join()

    assert verdict(cluster, witness) == []
    assert len(witness.accepted) == 24


def test_the_death_of_the_broker_delays_nobody(cluster: Cluster, witness: Witness) -> None:
    """With the broker killed a running job goes on, another is accepted at once and done; then it is back."""
    running = witness.post(steady(trials=2))
    until(lambda: cluster.measured(running), "an epoch is measured")
    cluster.broker.kill()
    witness.post(quick())
    witness.until_all_ended()
    cluster.restart_broker()
    witness.post(quick())

    assert verdict(cluster, witness) == []
    assert slowest_post(witness) < PROMPT


def test_a_broker_that_forgets_everything_loses_no_job(cluster: Cluster, witness: Witness) -> None:
    """FLUSHALL right after the jobs were accepted: workers look by themselves."""
    for _ in range(3):
        witness.post(quick())
        cluster.flush_broker()

    assert verdict(cluster, witness) == []


def test_a_broker_that_says_nothing_delays_nobody(cluster: Cluster, witness: Witness) -> None:
    """With the broker stopped by SIGSTOP jobs are accepted within two seconds, and done."""
    cluster.broker.pause()
    for _ in range(3):
        witness.post(quick())
    witness.until_all_ended()
    cluster.broker.resume()
    witness.post(quick())

    assert verdict(cluster, witness) == []
    assert slowest_post(witness) < PROMPT


def test_two_hundred_doorbells_are_one_claim(cluster: Cluster, witness: Witness) -> None:
    """However often two workers are told that there is work, one of them takes each pack, once."""
    job_id = witness.post(steady(trials=1, lanes=1))
    cluster.ring(200)
    found = verdict(cluster, witness)
    claims = [(pack.purpose, pack.lease_epoch) for pack in cluster.packs(job_id)]

    assert found == []
    assert claims == [("train", 1), ("publish", 1)]


def test_a_database_that_is_locked_for_five_seconds_loses_nothing(cluster: Cluster, witness: Witness) -> None:
    """Another process holds SQLite's lock longer than a lease lasts: jobs run on, and a request waits its turn."""
    job_id = witness.post(steady())
    until(lambda: cluster.measured(job_id), "an epoch is measured")
    cluster.lock_sqlite(5.0)
    witness.post(quick())

    assert slowest_post(witness) > 3
    assert verdict(cluster, witness) == []
    assert witness.job(job_id)["trials"] == {"completed": 4}


def test_a_trial_whose_loss_is_no_number_diverges_and_never_wins(cluster: Cluster, witness: Witness) -> None:
    """A learning rate of 1e30: the trial is diverged, without a value, in JSON that anybody can read."""
    space = {"learning_rate": {"type": "grid", "values": [1e30, 0.01]}, "hidden_size": 32}
    spec = steady(search_space=space, sampler={"name": "grid"}, budget={"epochs": 3}, lanes=None)
    job_id = witness.post(spec)
    found = verdict(cluster, witness)
    trials = {trial["params"]["learning_rate"]: trial for trial in witness.trials(job_id)}

    assert found == []
    assert {rate: trial["state"] for rate, trial in trials.items()} == {1e30: "diverged", 0.01: "completed"}
    assert trials[1e30]["value"] is None
    assert witness.job(job_id)["best"]["trial"] == trials[0.01]["number"]


@pytest.fixture
def known_network() -> Iterator[None]:
    """The network that breaks is known to this process too while it checks."""
    run_path(str(SABOTAGE / "sitecustomize.py"))
    yield
    del networks["fragile"]
    del Layer.kinds["Fragile"]


def fragile(fault: str) -> dict[str, Any]:
    """A job of two trials: one that trains to its end, and one that breaks."""
    space = {"fault": {"type": "grid", "values": [fault, "none"]}, "batch_size": 32, "learning_rate": 0.01}
    return steady(model="fragile", search_space=space, sampler={"name": "grid"}, budget={"epochs": 6}, lanes=None)


@pytest.mark.usefixtures("known_network")
def test_a_trial_that_aborts_its_process_harms_no_other(cluster: Cluster, witness: Witness) -> None:
    """os.abort() in a trainer: that trial fails and says how; its job's other one wins, and a neighbour is done."""
    job_id = witness.post(fragile("abort"))
    neighbour = witness.post(quick())
    found = verdict(cluster, witness)
    trials = {trial["params"]["fault"]: trial for trial in witness.trials(job_id)}

    assert found == []
    assert {fault: trial["state"] for fault, trial in trials.items()} == {"abort": "failed", "none": "completed"}
    assert "SIGABRT" in trials["abort"]["reason"]
    assert witness.job(job_id)["best"]["trial"] == trials["none"]["number"]
    assert witness.job(neighbour)["state"] == "completed"


@pytest.mark.usefixtures("known_network")
def test_a_trial_that_takes_all_memory_harms_no_other(cluster: Cluster, witness: Witness) -> None:
    """A trial allocates until its trainer is killed, as by the kernel: it fails alone."""
    with cluster.out_of_memory(2 * GIB) as killed:
        job_id = witness.post(fragile("allocate"))
        found = verdict(cluster, witness)
    states = {trial["params"]["fault"]: trial["state"] for trial in witness.trials(job_id)}

    assert found == []
    assert len(killed) >= 1
    assert states == {"allocate": "failed", "none": "completed"}


def test_two_hundred_idle_event_streams_cost_nobody_anything(cluster: Cluster, witness: Witness) -> None:
    """Two hundred streams of a job that waits: requests are answered, connections stay few, and news still comes."""
    job_id = witness.post(steady(trials=1, epochs=2, lanes=1))
    witness.ask("POST", f"/jobs/{job_id}/pause")
    with ExitStack() as stack:
        listeners = [stack.enter_context(listener(cluster.url, job_id)) for _ in range(200)]
        answered = [monotonic()]
        for _ in range(20):
            assert witness.job(job_id)["state"] == "paused"
            answered.append(monotonic())
        (api, *_) = cluster.api.tree()
        files = [file.path for file in api.open_files()]
        witness.resume(job_id)
        ends = [sum(b"event: job" in line for line in lines) for lines in listeners]

    assert verdict(cluster, witness) == []
    assert max(b - a for a, b in pairwise(answered)) < PROMPT
    assert sum(path.endswith(".db") for path in files) <= 40
    assert set(ends) == {len(witness.job(job_id)["history"])}


@contextmanager
def listener(url: str, job_id: str) -> Iterator[Iterator[bytes]]:
    """The lines of a stream of a job's events, once it has begun."""
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=PATIENCE) as connection:
        connection.sendall(f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with connection.makefile("rb") as lines:
            assert b"200" in lines.readline()
            yield iter(lambda: lines.readline(), b"0\r\n")


def test_a_cancelled_job_is_silent(cluster: Cluster, witness: Witness) -> None:
    """A job that is cancelled while both workers train it ends within ten seconds; nothing of it is written after."""
    job_id = witness.post(steady(epochs=1000))
    until(lambda: cluster.measured(job_id), "an epoch is measured")
    asked = monotonic()
    witness.cancel(job_id)
    witness.until_all_ended()
    took = monotonic() - asked
    witness.post(steady(trials=2, epochs=5, lanes=1))  # done by whoever has left the cancelled one

    assert verdict(cluster, witness) == []
    assert took < 10
    assert witness.job(job_id)["state"] == "cancelled"
