"""The rows of a publication: from a job's winner to a version, and the choice of the champion."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import select
from sqlmodel import col
from support.worker_tools import FILE, Work

from ml.records import TrialState
from worker.database.tables import Champion, Job, JobState, ModelVersion, Opening, PackPurpose
from worker.errors import LeaseLost
from worker.publication.rows import PublicationRows, Published

PUBLISHED = Published(("file.onnx", FILE), [1, 28, 28], list("0123456789"), 7850, 0.4, 0.88)


def win(work: Work, value: float, **fields: object) -> str:
    """Run a job of one trial up to its publication; return the job's id."""
    job = work.accept(budget={"trials": 1}, **fields)
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, value)
    publishing = PublicationRows(work.database)
    claim = work.leases.claim()
    assert claim is not None
    assert claim.purpose == PackPurpose.PUBLISH
    publishing.open_test(claim)
    publishing.publish(claim, publishing.winner(claim), PUBLISHED)
    return job.id


def champion(work: Work) -> int:
    """Return the champion of the perceptron on digits."""
    with work.database.reading() as session:
        reigning = session.get_one(Champion, ("perceptron", "digits"))
        return session.get_one(ModelVersion, reigning.version_id).version


def test_a_published_winner_completes_its_job(work: Work) -> None:
    """The version names its job, trial, data and code."""
    job_id = win(work, 0.9)
    with work.database.reading() as session:
        version = session.scalars(select(ModelVersion)).one()
    job = work.controls.cancel(job_id)

    assert (version.model, version.version, version.job_id, version.trial) == ("perceptron", 1, job_id, 0)
    assert (version.val_accuracy, version.test_accuracy, version.split) == (0.9, 0.88, "random")
    assert job.state == JobState.COMPLETED


def test_the_test_images_are_opened_once_per_run_of_a_job(work: Work) -> None:
    """Repeated publication records one opening, and it names the version."""
    work.accept(budget={"trials": 1})
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, 0.9)
    publishing = PublicationRows(work.database)
    claim = work.leases.claim()
    assert claim is not None
    publishing.open_test(claim)
    work.leases.release(claim)
    claim = work.leases.claim()
    assert claim is not None
    publishing.open_test(claim)
    publishing.publish(claim, publishing.winner(claim), PUBLISHED)
    with work.database.reading() as session:
        opening = session.scalars(select(Opening)).one()
        version = session.scalars(select(ModelVersion)).one()

    assert opening.version_id == version.id


def test_the_better_version_becomes_champion_and_a_worse_one_does_not(work: Work) -> None:
    """Versions of the same data, split and objective are compared on validation."""
    win(work, 0.9)
    first = champion(work)
    win(work, 0.8)
    after_worse = champion(work)
    win(work, 0.95)

    assert (first, after_worse, champion(work)) == (1, 1, 3)


def test_versions_of_different_objectives_are_not_compared(work: Work) -> None:
    """A loss and an accuracy are not comparable, so the champion stays."""
    win(work, 0.9)
    win(work, 0.01, objective="val_loss")

    assert champion(work) == 1


def test_the_lower_loss_is_better_if_the_loss_is_the_objective(work: Work) -> None:
    """The objective decides if higher or lower is better."""
    win(work, 0.5, objective="val_loss")
    win(work, 0.4, objective="val_loss")
    win(work, 0.6, objective="val_loss")

    assert champion(work) == 2


def test_a_cancelled_jobs_winner_is_not_published(work: Work) -> None:
    """A cancellation before the version is written wins the race."""
    job = work.accept(budget={"trials": 1})
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, 0.9)
    publishing = PublicationRows(work.database)
    claim = work.leases.claim()
    assert claim is not None
    winner = publishing.winner(claim)
    work.cancel(job)
    with pytest.raises(LeaseLost):
        publishing.publish(claim, winner, PUBLISHED)
    work.leases.release(claim)
    with work.database.reading() as session:
        versions = session.scalars(select(ModelVersion).where(col(ModelVersion.job_id) == job.id)).all()

    assert versions == []
    assert work.job(job).state == JobState.CANCELLED


def test_a_damaged_winner_is_trained_again_even_if_the_seconds_are_spent(work: Work) -> None:
    """If the limit ended it now, only a worse trial would be left to publish, or none."""
    job = work.accept(budget={"trials": 1, "seconds": 100})
    work.run_trial(work.pack(1), 0.9)
    with work.database.writing() as session:
        session.get_one(Job, job.id).active_seconds = 100
    publishing = PublicationRows(work.database)
    claim = work.leases.claim()
    assert claim is not None
    publishing.discard(claim, publishing.winner(claim), "damaged")
    claim = work.leases.claim()
    assert claim is not None
    orders = work.leases.orders(claim)
    work.run_trial(claim, 0.9)

    assert (claim.purpose, orders.stop) == (PackPurpose.TRAIN, None)
    assert work.job(job).state == JobState.STOPPING
    assert [trial.state for trial in work.trials()] == [TrialState.COMPLETED]


def test_publication_ends_the_pack_and_the_job_together(work: Work) -> None:
    """If a worker dies right after publication, no version is published twice, and the job cannot be cancelled."""
    job_id = win(work, 0.9)
    cancelled = work.controls.cancel(job_id)

    assert work.leases.claim() is None
    assert (cancelled.state, cancelled.error) == (JobState.COMPLETED, None)


def test_winners_that_are_published_at_once_get_different_versions(work: Work) -> None:
    """If four jobs of one network end at the same time, there are four versions, and the best is champion."""
    publishing = PublicationRows(work.database)
    for _ in range(4):
        work.accept(budget={"trials": 1})
    training = [claim for _ in range(4) if (claim := work.leases.claim())]
    for claim, value in zip(training, (0.6, 0.9, 0.7, 0.8), strict=True):
        work.run_trial(claim, value)
    claims = [claim for _ in range(4) if (claim := work.leases.claim())]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda claim: publishing.publish(claim, publishing.winner(claim), PUBLISHED), claims))
    with work.database.reading() as session:
        versions = session.scalars(select(ModelVersion)).all()
    best = next(version for version in versions if version.value == 0.9)

    assert sorted(version.version for version in versions) == [1, 2, 3, 4]
    assert champion(work) == best.version


def test_a_worker_that_lost_its_lease_publishes_nothing(work: Work) -> None:
    """Publication with an old lease is refused like every other write."""
    work.accept(budget={"trials": 1})
    claim = work.leases.claim()
    assert claim is not None
    work.run_trial(claim, 0.9)
    publishing = PublicationRows(work.database)
    claim = work.leases.claim()
    assert claim is not None
    winner = publishing.winner(claim)
    work.leases.release(claim)
    work.other.claim()

    with pytest.raises(LeaseLost):
        publishing.publish(claim, winner, PUBLISHED)
