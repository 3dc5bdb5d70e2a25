"""Faults of trainers, the API, the broker and the database's lock, with SQLite as the database."""

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

# These tests share one cluster. `make test` kills a trainer in tests/worker/supervision/test_supervisor.py instead.
pytestmark = pytest.mark.long

DATABASE = "sqlite"
SEEDS = range(1)  # `make chaos` draws more
PROMPT = 2.0  # seconds in which a request is answered, in any state of the broker
GIB = 1 << 30


def slowest_post(witness: Witness) -> float:
    """Return the seconds of the slowest POST of a job."""
    return max(answer.seconds for answer in witness.answers if answer.request == "POST /jobs/tune")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_killed_trainer_loses_no_trial(cluster: Cluster, witness: Witness, seed: int) -> None:
    """After kill -9 of a trainer in the middle of its pack, every trial still completes."""
    epochs = moment(seed, 20)
    with cluster.gate(epochs):
        job_id = witness.post(steady(seed=seed))
        until(lambda: cluster.measured(job_id) >= epochs, "enough epochs are measured")
        trainers = cluster.trainers(cluster.holder(job_id))
    for trainer in trainers:
        trainer.kill()

    assert verdict(cluster, witness) == []
    assert witness.job(job_id)["trials"] == {"completed": 4}


def test_a_trial_whose_trainer_was_killed_gets_the_same_results(cluster: Cluster, witness: Witness) -> None:
    """Two runs of the same job, one with a kill -9, have the same losses and accuracies to the last bit."""
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
def test_an_accepted_job_survives_the_death_of_the_api(cluster: Cluster, witness: Witness, seed: int) -> None:
    """After kill -9 of the API while two users post jobs, every job with 202 is done, and no request got a 500."""
    users = [Thread(target=lambda: [witness.post(quick()) for _ in range(12)]) for _ in range(2)]
    for user in users:
        user.start()
    until(lambda: len(witness.accepted) >= moment(seed, 12), "enough jobs are accepted")
    cluster.api.kill()
    cluster.restart_api()
    for user in users:
        user.join()

    assert verdict(cluster, witness) == []
    assert len(witness.accepted) == 24


def test_the_death_of_the_broker_delays_no_request(cluster: Cluster, witness: Witness) -> None:
    """Without the broker a running job continues, and a new job is accepted at once and done. Later it is back."""
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
    """After FLUSHALL, workers find the accepted jobs by polling."""
    for _ in range(3):
        witness.post(quick())
        cluster.flush_broker()

    assert verdict(cluster, witness) == []


def test_a_stopped_broker_delays_no_request(cluster: Cluster, witness: Witness) -> None:
    """While SIGSTOP holds the broker, jobs are accepted within two seconds, and done."""
    cluster.broker.pause()
    for _ in range(3):
        witness.post(quick())
    witness.until_all_ended()
    cluster.broker.resume()
    witness.post(quick())

    assert verdict(cluster, witness) == []
    assert slowest_post(witness) < PROMPT


def test_two_hundred_doorbells_cause_one_claim_per_pack(cluster: Cluster, witness: Witness) -> None:
    """Even if two workers are often told that there is work, each pack is claimed only once."""
    job_id = witness.post(steady(trials=1, lanes=1))
    cluster.ring(200)
    found = verdict(cluster, witness)
    claims = [(pack.purpose, pack.lease_epoch) for pack in cluster.packs(job_id)]

    assert found == []
    assert claims == [("train", 1), ("publish", 1)]


def test_a_database_lock_of_five_seconds_loses_nothing(cluster: Cluster, witness: Witness) -> None:
    """While another process holds SQLite's lock for longer than a lease, a request waits; jobs continue afterwards."""
    job_id = witness.post(steady())
    until(lambda: cluster.measured(job_id), "an epoch is measured")
    cluster.lock_sqlite(5.0)
    witness.post(quick())

    assert slowest_post(witness) > 3
    assert verdict(cluster, witness) == []
    assert witness.job(job_id)["trials"] == {"completed": 4}


def test_a_trial_without_a_finite_loss_diverges_and_never_wins(cluster: Cluster, witness: Witness) -> None:
    """With a learning rate of 1e30 the trial diverges and has no value, and the answer is valid JSON."""
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
    """Register the network that breaks in this process too, because the checker reads its specification."""
    run_path(str(SABOTAGE / "sitecustomize.py"))
    yield
    del networks["fragile"]
    del Layer.kinds["Fragile"]


def fragile(fault: str) -> dict[str, Any]:
    """Return the specification of a job with two trials: one completes, and one has this fault."""
    space = {"fault": {"type": "grid", "values": [fault, "none"]}, "batch_size": 32, "learning_rate": 0.01}
    return steady(model="fragile", search_space=space, sampler={"name": "grid"}, budget={"epochs": 6}, lanes=None)


@pytest.mark.usefixtures("known_network")
def test_a_trial_that_aborts_its_process_fails_alone(cluster: Cluster, witness: Witness) -> None:
    """A trial that calls os.abort() fails with a reason; the job's other trial wins, and another job completes."""
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
def test_a_trial_that_takes_all_memory_fails_alone(cluster: Cluster, witness: Witness) -> None:
    """One trial allocates memory until its trainer is killed, as the kernel would do; the other trial completes."""
    with cluster.out_of_memory(2 * GIB) as killed:
        job_id = witness.post(fragile("allocate"))
        found = verdict(cluster, witness)
    states = {trial["params"]["fault"]: trial["state"] for trial in witness.trials(job_id)}

    assert found == []
    assert len(killed) >= 1
    assert states == {"allocate": "failed", "none": "completed"}


def test_two_hundred_idle_event_streams_delay_no_request(cluster: Cluster, witness: Witness) -> None:
    """Requests are answered quickly, there are few database connections, and every stream gets the later events."""
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
    """Open a stream of a job's events, and yield its lines once it has begun."""
    with socket.create_connection((urlsplit(url).hostname, urlsplit(url).port), timeout=PATIENCE) as connection:
        connection.sendall(f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        with connection.makefile("rb") as lines:
            assert b"200" in lines.readline()
            yield iter(lambda: lines.readline(), b"0\r\n")


def test_nothing_is_written_for_a_cancelled_job(cluster: Cluster, witness: Witness) -> None:
    """A job cancelled while both workers train it ends within ten seconds, and nothing is written afterwards."""
    job_id = witness.post(steady(epochs=1000))
    until(lambda: cluster.measured(job_id), "an epoch is measured")
    asked = monotonic()
    witness.cancel(job_id)
    witness.until_all_ended()
    took = monotonic() - asked
    witness.post(steady(trials=2, epochs=5, lanes=1))  # the workers that left the cancelled job must be able to do it

    assert verdict(cluster, witness) == []
    assert took < 10
    assert witness.job(job_id)["state"] == "cancelled"
