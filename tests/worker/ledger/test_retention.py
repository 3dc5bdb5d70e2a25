"""The checkpoints that a job keeps."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlmodel import col
from support.worker_tools import FILE, Work, measurement

from ml.records import Finished, Started, TrialState
from worker.artifacts.folder import FolderStore
from worker.database.tables import Artifact, Job, ModelVersion
from worker.ledger.retention import Standing
from worker.publication.rows import PublicationRows, Published
from worker.supervision.janitor import stray

sizes = st.integers(0, 3).map(float)
standings = st.lists(st.builds(Standing, st.just(0), sizes, sizes, sizes), min_size=1, max_size=8).map(
    lambda found: [replace(one, number=n) for n, one in enumerate(found)]
)


def end(work: Work, job: Job, value: float, flops: int, weights: int) -> list[str]:
    """Run one trial of a job to this result; return the keys of files that are removed."""
    claim = work.leases.claim()
    assert claim is not None
    (record,) = work.reserved(claim)
    started = Started(record.number, {}, {}, {}, 1, 2, 0, flops, weights)
    finished = Finished(record.number, TrialState.COMPLETED, "", measurement(1, value), value, None)
    with work.unneeded() as unneeded:
        work.ledger.record(claim, [started, finished], {record.number: (f"{record.number}", FILE)})
    work.leases.close(claim)
    return unneeded


def kept(work: Work, job: Job) -> list[int]:
    """Return the numbers of a job's trials that have a checkpoint."""
    with work.database.reading() as session:
        of_job = (col(Artifact.job_id) == job.id, col(Artifact.kind) == "checkpoint")
        return sorted(session.scalars(select(col(Artifact.trial)).where(*of_job)))


def test_the_best_and_the_front_are_kept(work: Work) -> None:
    """A smaller network that is nearly as good is kept with the best; one that is worse in every respect is not."""
    job = work.accept(budget={"trials": 9})
    dropped = [
        end(work, job, 0.95, 100, 100),
        end(work, job, 0.90, 50, 100),  # fewer FLOPs
        end(work, job, 0.80, 60, 100),  # worse than the second in every respect
        end(work, job, 0.97, 100, 90),  # better than the first in every respect
        end(work, job, 0.90, 50, 100),  # equal to the second, and later
    ]

    assert dropped == [[], [], ["2"], ["0"], ["4"]]
    assert kept(work, job) == [1, 3]
    assert work.job(job).best_trial == 3


def test_the_files_of_a_version_are_kept(work: Work, tmp_path: Path) -> None:
    """Checkpoint and graph stay if a later run beats the version in every respect, and if the janitor tidies up."""
    store = FolderStore(tmp_path)
    job = work.accept(budget={"trials": 1})
    end(work, job, 0.9, 100, 100)
    claim = work.leases.claim()
    assert claim is not None
    publishing = PublicationRows(work.database)
    winner = publishing.winner(claim)
    graph = f"{job.id}/0.onnx"
    publishing.publish(claim, winner, Published((graph, FILE), [1, 28, 28], list("0123456789"), 100, 0.4, 0.88))
    work.controls.extend(job.id, {"trials": 3})
    unneeded = [end(work, job, 0.95, 50, 50), end(work, job, 0.97, 40, 40)]
    for key in (graph, f"{job.id}/stray"):
        store.write(key, b"content")
        os.utime(tmp_path / key, (1e9, 1e9))
    with work.database.reading() as session:
        version = session.scalars(select(ModelVersion)).one()
        files = [session.get_one(Artifact, file).path for file in (version.checkpoint_id, version.onnx_id)]

    assert unneeded == [[], ["1"]]
    assert files == ["0", graph]
    assert stray(work.database, store) == [f"{job.id}/stray"]


def test_the_database_itself_protects_the_files_of_a_version(work: Work) -> None:
    """The row of such a file cannot be deleted."""
    job = work.accept(budget={"trials": 1})
    end(work, job, 0.9, 100, 100)
    claim = work.leases.claim()
    assert claim is not None
    publishing = PublicationRows(work.database)
    published = Published(("graph", FILE), [1, 28, 28], list("0123456789"), 100, 0.4, 0.88)
    publishing.publish(claim, publishing.winner(claim), published)

    for kind in ("checkpoint", "onnx"):
        with pytest.raises(IntegrityError), work.database.writing() as session:
            session.execute(delete(Artifact).where(col(Artifact.kind) == kind))


def test_the_lower_loss_is_kept_if_the_loss_is_the_objective(work: Work) -> None:
    """The objective decides if higher or lower is better."""
    job = work.accept(budget={"trials": 9}, objective="val_loss")
    for value in (0.5, 0.4, 0.6):
        end(work, job, value, 10, 10)

    assert kept(work, job) == [1]


@pytest.mark.long
def test_a_long_job_keeps_few_checkpoints(work: Work) -> None:
    """Of a hundred trials here, with ten levels of accuracy, at most ten are on the front and kept."""
    job = work.accept(budget={"trials": 1000})
    for n in range(100):
        size = 1 + n * 37 % 100
        end(work, job, 0.9 + 0.0001 * (size % 10), size, size)

    assert len(kept(work, job)) <= 10


@given(standings)
def test_every_trial_off_the_front_is_beaten_by_one_on_the_front(found: list[Standing]) -> None:
    """`beats` is an order, so comparing with the kept trials is as good as comparing with all."""
    front = [one for one in found if not any(other.beats(one) for other in found)]

    assert front
    assert all(one in front or any(other.beats(one) for other in front) for one in found)
    assert max(one.value for one in found) == max(one.value for one in front)
