"""Tests of the history checker: a good history has no violation, and a history with one fault has exactly that one."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from acceptance.faults.history import check
from acceptance.faults.witness import Answer
from sqlalchemy import delete, insert, select, update
from sqlmodel import Session, col
from support.worker_tools import Work, measurement

from ml.artifacts import save_checkpoint, write
from ml.records import Checkpoint, Finished, Measured, TrialState
from worker.database.engine import Database
from worker.database.tables import Artifact, Event, Job, Measurement, ModelVersion, Pack, StopReason, Trial
from worker.ledger.leases import Claim, Leases, fence
from worker.ledger.ledger import Ledger
from worker.publication.rows import PublicationRows, Published

GOOD = [Answer("POST /jobs/tune", 202, "1"), Answer("GET /jobs", 503, "2"), Answer("GET /jobs", 404, None)]


@pytest.fixture
def work(sqlite_template: Path, tmp_path: Path) -> Iterator[Work]:
    """Yield a SQLite database with its ledger and two workers."""
    path = tmp_path / "chiffre.db"
    shutil.copy(sqlite_template, path)
    database = Database(f"sqlite:///{path}")
    yield Work(database, Ledger(database), Leases(database, "one", 60), Leases(database, "two", 60))
    database.close()


@pytest.fixture
def job(work: Work, tmp_path: Path) -> str:
    """Return the id of a completed job with two trials of two epochs.

    After the first epoch of the first trial, another worker has taken over the pack.
    """
    job = work.accept(budget={"trials": 2, "epochs": 2}, pruner={"name": "none"}, lanes=1)
    claim = work.pack(1)
    work.measure(claim, 0, measurement(1, 0.5))
    work.leases.release(claim)
    taken = work.other.claim()
    assert taken is not None
    _end(work, taken, 0, 2, 0.75, tmp_path)
    second = work.pack(1)
    work.measure(second, 1, measurement(1, 0.5))
    _end(work, second, 1, 2, 0.625, tmp_path)
    _publish(work, tmp_path)
    return job.id


@pytest.fixture
def cancelled(work: Work) -> str:
    """Return the id of a job that was cancelled after one epoch of its only trial."""
    job = work.accept(budget={"trials": 1, "epochs": 2}, pruner={"name": "none"}, lanes=1)
    claim = work.pack(1)
    work.measure(claim, 0, measurement(1, 0.5))
    work.cancel(job)
    work.leases.release(claim)
    return job.id


def _end(work: Work, claim: Claim, number: int, epoch: int, accuracy: float, folder: Path) -> None:
    """Measure a trial's last epoch, save its checkpoint and close its pack."""
    best = measurement(epoch, accuracy)
    card = {"trial": number, "epoch": epoch, "val_accuracy": accuracy, "val_loss": 0.5}
    path = f"{claim.job_id}/{number}.{claim.epoch}.safetensors"
    saved = {number: (path, save_checkpoint(folder / path, Checkpoint({"w": np.zeros(1, np.float32)}, card)))}
    finished = Finished(number, TrialState.COMPLETED, "all epochs done", best, accuracy, None)
    work.ledger.record(claim, [Measured(number, best, {}), finished], saved)
    work.leases.close(claim)


def _publish(work: Work, folder: Path) -> None:
    """Publish the winner as a version."""
    publishing = PublicationRows(work.database)
    claim = work.leases.claim()
    assert claim is not None
    path = f"{claim.job_id}/winner.onnx"
    onnx = write(folder / path, b"a graph")
    publishing.open_test(claim)
    published = Published((path, onnx), [1, 28, 28], list("0123456789"), 7850, 0.4, 0.88)
    publishing.publish(claim, publishing.winner(claim), published)


class Spoiler:
    """Puts a fault into the history of a job."""

    def __init__(self, work: Work, job_id: str, folder: Path) -> None:
        self.work = work
        self.job_id = job_id
        self.folder = folder

    def change(self, table: Any, *where: Any, **values: Any) -> None:
        """Change rows of the job."""
        self._execute(update(table).where(*where).values(**values))

    def add(self, table: Any, **values: Any) -> None:
        """Add a row."""
        self._execute(insert(table).values(**values))

    def drop(self, table: Any, *where: Any) -> None:
        """Remove rows."""
        self._execute(delete(table).where(*where))

    def event(self, state: str, trial: int | None = None) -> None:
        """Add an event after all others, for the job or for one of its trials."""
        with self.work.database.writing() as session:
            job = session.get_one(Job, self.job_id)
            job.sequence += 1
            session.add(Event(job_id=job.id, sequence=job.sequence, trial=trial, state=state, at=1.0))

    def measure(self, number: int, epoch: int, **values: Any) -> None:
        """Add a measurement of a trial after all others."""
        with self.work.database.writing() as session:
            job = session.get_one(Job, self.job_id)
            job.sequence += 1
            trial_id = _trial_id(session, job.id, number)
            fields: dict[str, Any] = {
                "lease_epoch": 1,
                "train_loss": 0.5,
                "val_loss": 0.5,
                "val_accuracy": 0.1,
                **values,
            }
            common: dict[str, Any] = {"images_seen": 1, "seconds": 1.0, "job_id": job.id, "sequence": job.sequence}
            session.add(Measurement(trial_id=trial_id, step=10 * epoch, **common, **fields))

    def trial_id(self, number: int) -> int:
        """Return the id of a trial's row."""
        with self.work.database.reading() as session:
            return _trial_id(session, self.job_id, number)

    def file(self, kind: str) -> Path:
        """Return the path of the job's only file of a kind."""
        with self.work.database.reading() as session:
            of_kind = (col(Artifact.job_id) == self.job_id, col(Artifact.kind) == kind)
            return self.folder / session.scalars(select(col(Artifact.path)).where(*of_kind)).one()

    def violations(self) -> list[str]:
        """Return the violations that the checker reports, without the job's id."""
        found = check(self.work.database, self.folder, [self.job_id], GOOD)
        return [words.removeprefix(f"job {self.job_id}: ") for words in found]

    def _execute(self, statement: Any) -> None:
        with self.work.database.writing() as session:
            session.execute(statement)


def _trial_id(session: Session, job_id: str, number: int) -> int:
    of_trial = (col(Trial.job_id) == job_id, col(Trial.number) == number)
    return session.scalars(select(col(Trial.id)).where(*of_trial)).one() or 0


@pytest.fixture
def spoil(work: Work, job: str, tmp_path: Path) -> Spoiler:
    """Return a spoiler for the completed job."""
    return Spoiler(work, job, tmp_path)


def test_a_good_history_has_no_violation(spoil: Spoiler, cancelled: str) -> None:
    """This holds for a completed and for a cancelled job."""
    assert check(spoil.work.database, spoil.folder, [spoil.job_id, cancelled], GOOD) == []


def test_an_accepted_job_that_is_gone_is_reported(work: Work, tmp_path: Path) -> None:
    """The status 202 promised that the job would be run."""
    assert check(work.database, tmp_path, ["abc"], []) == ["job abc was accepted and does not exist"]


def test_a_job_that_has_not_ended_is_reported(work: Work, tmp_path: Path) -> None:
    """The job is still queued when all jobs should have ended."""
    job = work.accept()

    assert check(work.database, tmp_path, [job.id], []) == [f"job {job.id}: it has not ended but is queued"]


def test_a_second_end_is_reported(spoil: Spoiler) -> None:
    """The job was completed twice in one run."""
    spoil.event("completed")

    assert spoil.violations() == ["run 1 has 2 final states: completed, completed"]


def test_a_state_that_differs_from_the_end_of_the_history_is_reported(spoil: Spoiler) -> None:
    """The job's row and its events disagree."""
    spoil.change(Job, state="failed")

    assert spoil.violations() == ["it is failed, and its history ends in completed"]


def test_a_job_that_continues_after_its_end_is_reported(spoil: Spoiler) -> None:
    """The job runs again without a new `queued`."""
    spoil.event("running")

    assert spoil.violations() == ["run 1 continues after completed with running"]


def test_a_second_run_is_fine_if_it_begins_with_queued(spoil: Spoiler) -> None:
    """A higher budget begins a second run of a completed job; another `queued` while it waits begins no third run."""
    for state in ("queued", "queued", "running", "completed"):
        spoil.event(state)

    assert spoil.violations() == []


def test_a_history_without_a_beginning_is_reported(spoil: Spoiler) -> None:
    """The first event is not queued."""
    spoil.change(Event, col(Event.sequence) == 1, state="running")

    assert spoil.violations() == ["its history does not begin with queued"]


def test_a_stale_writer_is_reported(spoil: Spoiler) -> None:
    """The second epoch of the first trial was written by a worker that had lost the pack."""
    first = spoil.trial_id(0)
    spoil.change(Measurement, col(Measurement.trial_id) == first, col(Measurement.step) == 10, lease_epoch=2)
    spoil.change(Measurement, col(Measurement.trial_id) == first, col(Measurement.step) == 20, lease_epoch=1)

    assert spoil.violations() == [
        "pack 1: a stale writer, of lease epoch 1, wrote step 20 of trial 0 after one of epoch 2"
    ]


def test_a_writer_without_a_lease_is_reported(spoil: Spoiler) -> None:
    """Its lease epoch is above the pack's."""
    spoil.change(Pack, col(Pack.id) == 1, lease_epoch=1)

    assert spoil.violations() == ["pack 1: lease epoch 2 wrote, but the newest epoch is 1"]


def test_a_gap_is_reported(spoil: Spoiler) -> None:
    """The first epoch is missing."""
    spoil.drop(Measurement, col(Measurement.trial_id) == spoil.trial_id(1), col(Measurement.step) == 10)

    assert spoil.violations() == ["trial 1 was measured at [20], not at the first of its rungs [10, 20]"]


def test_steps_written_out_of_order_are_reported(spoil: Spoiler) -> None:
    """The second epoch was written before the first."""
    second = spoil.trial_id(1)
    with spoil.work.database.reading() as session:
        rows = session.scalars(select(Measurement).where(col(Measurement.trial_id) == second)).all()
    sequences = {row.step: row.sequence for row in rows}
    for step, other in ((10, 20), (20, 10)):
        of_step = (col(Measurement.trial_id) == second, col(Measurement.step) == step)
        spoil.change(Measurement, *of_step, sequence=sequences[other])

    assert spoil.violations() == ["trial 1 was measured at [20, 10], not at the first of its rungs [10, 20]"]


def test_a_completed_trial_that_was_not_trained_enough_is_reported(spoil: Spoiler) -> None:
    """The last epoch, which was not the best one, is missing."""
    spoil.change(
        Measurement, col(Measurement.trial_id) == spoil.trial_id(1), col(Measurement.step) == 10, val_accuracy=0.625
    )
    spoil.drop(Measurement, col(Measurement.trial_id) == spoil.trial_id(1), col(Measurement.step) == 20)

    assert spoil.violations() == ["trial 1 completed at [10], before the end of its rungs [10, 20]"]


def test_a_value_that_was_not_measured_is_reported(spoil: Spoiler) -> None:
    """This holds even for a trial that is not the best."""
    spoil.change(Trial, col(Trial.number) == 1, value=0.7)

    assert spoil.violations() == ["trial 1 is completed with the value 0.7, and measured 0.625 at best"]


def test_a_best_trial_that_is_not_best_is_reported(spoil: Spoiler) -> None:
    """Another trial has a better measurement."""
    second = spoil.trial_id(1)
    spoil.change(Measurement, col(Measurement.trial_id) == second, col(Measurement.step) == 20, val_accuracy=0.875)
    spoil.change(Trial, col(Trial.number) == 1, value=0.875)

    assert spoil.violations() == ["its best is trial 0 with 0.75, but should be trial 1 with 0.875"]


def test_the_first_of_equal_trials_is_the_best(spoil: Spoiler) -> None:
    """If the second trial is as good as the first, the job must still name the first."""
    second = spoil.trial_id(1)
    spoil.change(Measurement, col(Measurement.trial_id) == second, col(Measurement.step) == 20, val_accuracy=0.75)
    spoil.change(Trial, col(Trial.number) == 1, value=0.75)

    assert spoil.violations() == []


def test_a_best_trial_without_checkpoint_is_reported(spoil: Spoiler) -> None:
    """The file exists but belongs to another trial."""
    spoil.change(Artifact, col(Artifact.kind) == "checkpoint", trial=1)

    assert spoil.violations() == [
        "its best trial 0 has no checkpoint",
        "the checkpoint of version 1 is not of trial 0",
    ]


def test_a_damaged_checkpoint_is_reported(spoil: Spoiler) -> None:
    """One bit of the file has changed."""
    file = spoil.file("checkpoint")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    (words,) = spoil.violations()

    assert words.startswith("the checkpoint of trial 0: 0.2.safetensors is damaged")


def test_a_checkpoint_of_another_trial_is_reported(spoil: Spoiler) -> None:
    """The file is whole, but its card names another trial."""
    file = spoil.file("checkpoint")
    card = {"trial": 1, "val_accuracy": 0.625}
    saved = save_checkpoint(file, Checkpoint({"w": np.zeros(1, np.float32)}, card))
    spoil.change(Artifact, col(Artifact.kind) == "checkpoint", sha256=saved.sha256)

    assert spoil.violations() == ["the checkpoint of its best trial is of trial 1 with 0.625"]


def test_a_completed_job_that_was_not_published_is_reported(spoil: Spoiler) -> None:
    """The only version belongs to another job."""
    other = spoil.work.accept()
    spoil.change(ModelVersion, job_id=other.id)

    assert spoil.violations() == ["it is completed, but no version was published"]


def test_a_version_of_another_trial_is_reported(spoil: Spoiler) -> None:
    """The version has the winner's files, but another value."""
    spoil.change(ModelVersion, value=0.9)

    assert spoil.violations() == ["version 1 is of trial 0 with 0.9, not of its best"]


@pytest.mark.parametrize(("damage", "words"), [("missing", "missing"), ("changed", "not what was written")])
def test_a_missing_or_changed_graph_is_reported(spoil: Spoiler, damage: str, words: str) -> None:
    """The file was removed or overwritten."""
    file = spoil.file("onnx")
    file.write_bytes(b"another graph")
    if damage == "missing":
        file.unlink()

    assert spoil.violations() == [f"the onnx of version 1 is {words}"]


def test_writes_after_a_cancellation_are_reported(work: Work, cancelled: str, tmp_path: Path) -> None:
    """The checker reports a measurement and a transition of a trial."""
    spoil = Spoiler(work, cancelled, tmp_path)
    spoil.measure(0, 2)
    spoil.event("cancelled", trial=0)

    assert spoil.violations() == [
        "trial 0 became cancelled after the job was cancelled",
        "step 20 of trial 0 was written after the job was cancelled",
    ]


def test_a_missing_trial_is_reported(spoil: Spoiler) -> None:
    """Three trials were reserved, but only two have rows."""
    spoil.change(Job, reserved=3, trial_limit=3)

    assert spoil.violations() == ["3 trials were reserved, but their numbers are [0, 1]"]


def test_a_trial_beyond_the_limit_is_reported(spoil: Spoiler) -> None:
    """Two trials were reserved, but the limit is one."""
    spoil.change(Job, trial_limit=1)

    assert spoil.violations() == ["2 trials were reserved, but the limit is 1"]


def test_an_unused_budget_is_reported(spoil: Spoiler) -> None:
    """The limit on trials is the reason why the job ended, but a trial is left."""
    spoil.change(Job, trial_limit=3)

    assert spoil.violations() == ["its limit on trials ended it, but 2 of 3 were reserved"]


def test_an_unused_budget_is_fine_if_another_limit_ended_the_job(spoil: Spoiler) -> None:
    """The limit on seconds was reached first."""
    spoil.change(Job, trial_limit=3, stop_reason=StopReason.SECONDS)

    assert spoil.violations() == []


def test_a_trial_that_still_runs_is_reported(work: Work, cancelled: str, tmp_path: Path) -> None:
    """The job has ended, but its trial has not."""
    spoil = Spoiler(work, cancelled, tmp_path)
    spoil.change(Trial, state="running")

    assert spoil.violations() == ["trial 0 still runs"]


def test_an_open_pack_is_reported(spoil: Spoiler) -> None:
    """A worker would claim an open pack."""
    spoil.change(Pack, col(Pack.id) == 1, done=False)

    assert spoil.violations() == ["pack 1 is not done"]


def test_a_leased_pack_is_reported(spoil: Spoiler) -> None:
    """A worker still works on a leased pack."""
    spoil.change(Pack, col(Pack.id) == 1, lease_owner="one")

    assert spoil.violations() == ["pack 1 is leased to one"]


def test_a_repeated_sequence_number_is_reported(spoil: Spoiler) -> None:
    """The first event and a measurement have the same number."""
    spoil.change(Measurement, col(Measurement.trial_id) == spoil.trial_id(0), col(Measurement.step) == 10, sequence=1)

    assert spoil.violations() == ["sequence number 1 was given twice"]


def test_a_sequence_number_above_the_jobs_is_reported(spoil: Spoiler) -> None:
    """The job's counter was not raised with the last event."""
    with spoil.work.database.reading() as session:
        last = session.get_one(Job, spoil.job_id).sequence
    spoil.change(Job, sequence=last - 1)

    assert spoil.violations() == [f"sequence number {last} is above the job's {last - 1}"]


def test_server_errors_other_than_503_with_retry_after_are_reported(work: Work, tmp_path: Path) -> None:
    """The only allowed server error is 503, and it must say when to try again."""
    answers = [*GOOD, Answer("GET /jobs", 500, None), Answer("GET /jobs", 503, None)]

    assert check(work.database, tmp_path, [], answers) == [
        "GET /jobs was answered 500 without Retry-After",
        "GET /jobs was answered 503 without Retry-After",
    ]


def test_a_trial_that_moved_to_another_pack_has_no_stale_writer(work: Work, tmp_path: Path) -> None:
    """After a trainer died, its two trials are split into two packs, and the new pack continues the lease epochs."""
    job = work.accept(budget={"trials": 2, "epochs": 2}, pruner={"name": "none"}, lanes=2)
    work.leases.release(work.pack(2))
    second = work.leases.claim()
    assert second is not None
    for number in (0, 1):
        work.measure(second, number, measurement(1, 0.5))
    work.leases.died(second, "signal SIGKILL")
    apart = [work.leases.claim(), work.other.claim()]
    for claim in apart:
        assert claim is not None
        (record,) = work.reserved(claim)
        work.measure(claim, record.number, measurement(2, 0.5))
    work.cancel(job)

    assert check(work.database, tmp_path, [job.id], []) == []


@pytest.mark.parametrize("fenced", [True, False])
def test_without_the_fence_a_stale_writer_is_found(
    work: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fenced: bool
) -> None:
    """Two workers believe that they hold one pack. The fence refuses the first, else the checker finds its write."""
    job = work.accept(budget={"trials": 1, "epochs": 3}, pruner={"name": "none"}, lanes=1)
    stale = work.pack(1)
    work.measure(stale, 0, measurement(1, 0.5))
    _expire(work)
    taken = work.other.claim()
    assert taken is not None
    work.measure(taken, 0, measurement(2, 0.5))
    if not fenced:
        monkeypatch.setattr("worker.ledger.ledger.fence", _unfenced)
    refused = _is_refused(work, stale)
    monkeypatch.undo()
    found = check(work.database, tmp_path, [job.id], [])
    stale_writers = [words for words in found if "stale writer" in words]

    assert refused == fenced
    assert len(stale_writers) == (0 if fenced else 1)


def _expire(work: Work) -> None:
    """Let every lease expire."""
    with work.database.writing() as session:
        session.execute(update(Pack).values(lease_expires_at=1.0))


def _is_refused(work: Work, claim: Claim) -> bool:
    """Return whether the ledger refuses a write under a claim."""
    from worker.errors import LeaseLost

    try:
        work.measure(claim, 0, measurement(3, 0.5))
    except LeaseLost:
        return True
    return False


def _unfenced(session: Session, claim: Claim) -> Any:
    """Do what `worker.ledger.leases.fence` does, but without comparing lease epochs."""
    return fence(session, replace(claim, epoch=session.get_one(Pack, claim.pack_id).lease_epoch))
