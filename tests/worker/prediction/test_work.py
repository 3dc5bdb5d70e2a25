"""Predict jobs: a version's answers for many images, and jobs that are disturbed."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix
from sqlalchemy import select, update
from sqlmodel import col
from support.prediction_tools import Orders, Predictions
from support.supervising import DEADLINE, in_background, until
from support.worker_tools import Work

from ml.artifacts import Saved
from ml.datasets import data_split, datasets
from ml.records import Stop
from tests.api.tools import Version, publish
from worker.artifacts.folder import FolderStore
from worker.database.tables import Event, Job, JobState, Pack
from worker.errors import Conflict, LeaseLost
from worker.ledger.leases import MAX_DEATHS, Leases
from worker.prediction.image_sets import ImageSet, Subset
from worker.prediction.rows import PredictSpec, asked_version, upload_key
from worker.supervision.supervisor import Supervisor
from worker.supervision.trainer_pool import Trainers

TEMPERATURE, LIMIT = 0.5, 0.3


@pytest.fixture
def predictions(work: Work, tmp_path: Path) -> Predictions:
    """Return a ledger with a folder of artifacts."""
    return Predictions(work, tmp_path / "artifacts")


@pytest.fixture
def version(predictions: Predictions) -> Version:
    """Return a published version for digits that abstains from some of them."""
    found = publish(predictions.work, predictions.artifacts, dataset="digits")
    predictions.calibrate(temperature=TEMPERATURE, confidence_limit=LIMIT)
    return found


def expected(version: Version, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return torch's classes and confidences for the digits at these places."""
    images = torch.from_numpy(datasets["digits"].load().images[places]).float() / 255
    with torch.inference_mode():
        confidences, labels = (version.module(images) / TEMPERATURE).softmax(1).max(1)
    return labels.numpy(), confidences.numpy()


def truths(places: np.ndarray) -> np.ndarray:
    """Return the true classes of the digits at these places."""
    return datasets["digits"].load().labels[places]


def upload(predictions: Predictions) -> tuple[Job, Path]:
    """Post a job for two uploaded blank images; return the job and the uploaded file."""
    version = asked_version(predictions.work.database, "perceptron", None, "digits")
    images = ImageSet(np.zeros((2, 1, 28, 28), np.uint8), np.arange(2), np.full(2, -1))
    key = upload_key(version)
    saved = FolderStore(predictions.artifacts).write(key, images.to_bytes())
    spec = PredictSpec(model="perceptron", version=version.version, dataset="digits")
    return predictions.rows.accept(version, spec, (key, saved)), predictions.artifacts / key


def history(work: Work, job: Job) -> list[str]:
    """Return the states that a job went through."""
    with work.database.reading() as session:
        events = select(Event).where(col(Event.job_id) == job.id).order_by(col(Event.sequence))
        return [event.state for event in session.scalars(events)]


# --- answers


@pytest.mark.parametrize("subset", ["validation", "test", "train", "all"])
def test_accuracy_and_confusion_equal_scikit_learns_on_torchs_answers(
    predictions: Predictions, version: Version, subset: Subset
) -> None:
    """Each subset of the data set follows the split of the version's job."""
    job = predictions.accept(subset)
    predictions.run()
    size = datasets["digits"].size
    parts = {"all": np.arange(size)} | vars(data_split(size, None, "random", version.job.spec["seed"]))
    places = np.sort(parts[subset])
    labels, confidences = expected(version, places)
    row = predictions.work.job(job)
    answers = predictions.answers(job.id)

    assert row.state == JobState.COMPLETED
    assert row.result is not None
    assert row.result["accuracy"] == pytest.approx(accuracy_score(truths(places), labels))
    assert row.result["confusion_matrix"] == confusion_matrix(truths(places), labels, labels=range(10)).tolist()
    assert (row.result["images"], row.result["labelled"], row.result["unusable"]) == (len(places), len(places), 0)
    assert [answer["index"] for answer in answers] == places.tolist()
    assert [int(answer["label"]) for answer in answers] == labels.tolist()
    assert [int(answer["truth"]) for answer in answers] == truths(places).tolist()
    assert [answer["confidence"] for answer in answers] == pytest.approx(confidences.tolist(), abs=2e-6)


def test_a_version_abstains_as_in_a_direct_request(predictions: Predictions, version: Version) -> None:
    """It abstains below the confidence limit with a reason, and still names the most probable label."""
    job = predictions.accept()
    predictions.run()
    answers = predictions.answers(job.id)
    unsure = [answer for answer in answers if answer["confidence"] < LIMIT]

    assert 0 < len(unsure) < len(answers)
    assert [answer for answer in answers if answer["abstained"]] == unsure
    assert all(answer["reason"] and answer["label"] for answer in unsure)
    assert (predictions.work.job(job).result or {})["abstained"] == len(unsure)


def test_a_real_worker_completes_a_predict_job(work: Work, supervisor: Supervisor, environment: Path) -> None:
    """A trainer claims and completes it; its transitions are recorded and every image is answered."""
    predictions = Predictions(work, environment)
    publish(work, environment, dataset="digits")
    job = predictions.accept()
    supervisor.work()
    row = work.job(job)

    assert (row.state, row.error, row.stop_reason) == (JobState.COMPLETED, None, None)
    assert history(work, job) == ["queued", "running", "completed"]
    assert (row.result or {})["images"] == len(predictions.answers(job.id)) == 323


# --- the test images


@pytest.mark.parametrize(("subset", "openings"), [("test", 1), ("all", 1), ("validation", 0), ("train", 0)])
def test_opening_the_test_images_is_counted_once(
    predictions: Predictions, version: Version, subset: Subset, openings: int
) -> None:
    """The count is one even if the work begins twice; a job without test images counts none."""
    job = predictions.accept(subset)
    claim = predictions.claim()
    begun = predictions.run(claim, Orders(Stop.RELEASED))
    predictions.work.leases.release(claim)
    finished = predictions.run()
    found = predictions.openings(job.id)
    asked = asked_version(predictions.work.database, "perceptron", None, "digits")

    assert (begun, finished) == (False, True)
    assert len(found) == openings
    assert all((one.version_id, one.split, one.run) == (asked.id, "random", 1) for one in found)


# --- disturbances


@pytest.mark.long
def test_a_killed_trainer_costs_only_time(
    work: Work, supervisor: Supervisor, trainers: Trainers, environment: Path
) -> None:
    """After a kill -9 between the opening of the test images and the last answer, the next worker does all the work."""
    predictions = Predictions(work, environment)
    publish(work, environment, "cnn")
    job = predictions.accept("all", "cnn", "mnist")
    working = in_background(supervisor)
    until(lambda: predictions.openings(job.id))
    os.kill(trainers._all[0].pid, signal.SIGKILL)
    supervisor.draining.set()  # the rest is left to another worker
    working.join(DEADLINE)
    before = predictions.files(job.id, "predictions")
    Supervisor(Leases(work.database, "another", 6), trainers, poll_seconds=0.2).work()
    (file,) = predictions.files(job.id, "predictions")

    assert before == []
    assert work.job(job).state == JobState.COMPLETED
    assert (work.job(job).result or {})["images"] == 70_000
    assert len(predictions.answers(job.id)) == 70_000
    assert len(predictions.openings(job.id)) == 1
    assert [path.name for path in environment.glob(f"{job.id}/*")] == [Path(file.path).name]


def test_a_worker_that_lost_its_lease_writes_nothing(predictions: Predictions, version: Version) -> None:
    """Another worker has claimed the pack in the meantime; one result is recorded, with one file."""
    job = predictions.accept()
    late = predictions.claim()
    with predictions.work.database.writing() as session:
        session.execute(update(Pack).where(col(Pack.id) == late.pack_id).values(lease_expires_at=1.0))
    predictions.run()
    with pytest.raises(LeaseLost):
        predictions.rows.finish(late, ("x/late.jsonl", Saved("0", 1)), {"images": 0})

    assert len(predictions.files(job.id, "predictions")) == 1
    assert (predictions.work.job(job).result or {})["images"] == 323


class Cancelling(Orders):
    """Orders that cancel the job in the middle of its work, as if the supervisor did not know it yet."""

    def __init__(self, work: Work, job: Job) -> None:
        self.work, self.job = work, job

    @property
    def stop(self) -> Stop | None:  # type: ignore[override]
        """Cancel the job, and return no order to stop."""
        self.work.cancel(self.job)
        return None


def test_a_job_that_is_cancelled_in_the_middle_leaves_no_result(predictions: Predictions, version: Version) -> None:
    """There is no file either, and the job stays cancelled."""
    job = predictions.accept()
    with pytest.raises(LeaseLost):
        predictions.run(orders=Cancelling(predictions.work, job))

    assert predictions.state(job)[0] == JobState.CANCELLED
    assert predictions.work.job(job).result is None
    assert list(predictions.artifacts.glob(f"{job.id}/*")) == []


def test_a_job_that_is_paused_while_it_ends_completes_when_it_is_resumed(
    predictions: Predictions, version: Version
) -> None:
    """Its result is kept during the pause."""
    job = predictions.accept()
    claim = predictions.claim()
    predictions.work.controls.pause(job.id)
    predictions.run(claim)
    held = predictions.state(job)[0]
    predictions.work.controls.resume(job.id)

    assert held == JobState.PAUSED
    assert predictions.state(job)[0] == JobState.COMPLETED
    assert predictions.work.leases.claim() is None


def test_a_job_that_is_paused_in_the_middle_completes_after_it_is_resumed(
    predictions: Predictions, version: Version
) -> None:
    """It cannot be claimed during the pause, and then runs from its start."""
    job = predictions.accept()
    claim = predictions.claim()
    predictions.work.controls.pause(job.id)
    told = predictions.work.leases.orders(claim).stop
    predictions.work.leases.release(claim)
    while_paused = predictions.work.leases.claim()
    predictions.work.controls.resume(job.id)
    predictions.run()

    assert (told, while_paused) == (Stop.RELEASED, None)
    assert predictions.state(job)[0] == JobState.COMPLETED


def test_a_job_whose_trainers_die_fails_and_says_why(predictions: Predictions, version: Version) -> None:
    """It fails after as many deaths as a trial may cause, and its uploaded images are removed."""
    job, file = upload(predictions)
    stored = file.exists()
    with predictions.work.unneeded() as unneeded:
        for _ in range(MAX_DEATHS):
            predictions.work.leases.died(predictions.claim(), "signal SIGSEGV")
    state, error = predictions.state(job)

    assert stored
    assert state == JobState.FAILED
    assert error == "the images could not be classified: signal SIGSEGV"
    assert unneeded == [str(file.relative_to(predictions.artifacts))]
    assert predictions.work.leases.claim() is None


def test_uploaded_images_are_removed_after_the_answers(predictions: Predictions, version: Version) -> None:
    """The answers stay; without labels there is no accuracy."""
    job, file = upload(predictions)
    predictions.run()
    result = predictions.work.job(job).result or {}

    assert not file.exists()
    assert predictions.files(job.id, "upload") == []
    assert (result["images"], result["labelled"]) == (2, 0)
    assert (result["accuracy"], result["confusion_matrix"]) == (None, None)
    assert [answer.keys() & {"truth", "id"} for answer in predictions.answers(job.id)] == [set(), set()]


def test_uploaded_images_are_removed_if_the_job_is_cancelled(predictions: Predictions, version: Version) -> None:
    """They are removed even if the job was never begun."""
    job, file = upload(predictions)
    with predictions.work.unneeded() as unneeded:
        predictions.work.controls.cancel(job.id)

    assert unneeded == [str(file.relative_to(predictions.artifacts))]
    assert predictions.files(job.id, "upload") == []


def test_a_damaged_upload_is_never_answered(predictions: Predictions, version: Version) -> None:
    """Its hash is verified first."""
    _, file = upload(predictions)
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(Exception, match="SHA-256"):
        predictions.run()


# --- rows


def test_an_older_release_begins_no_predict_job(predictions: Predictions, version: Version) -> None:
    """For a release that knows only trials, the job has no pack to claim and no trial to begin."""
    job = predictions.accept()
    packs = [pack for pack in predictions.work.packs() if pack.job_id == job.id]

    assert packs == []
    assert job.reserved >= job.trial_limit


def test_a_job_is_claimed_by_one_worker(predictions: Predictions, version: Version) -> None:
    """A claimed job is not begun again, and an older job goes first."""
    older, newer = predictions.accept(), predictions.accept()
    first, second = predictions.claim(), predictions.work.other.claim()

    assert second is not None
    assert (first.job_id, second.job_id) == (older.id, newer.id)
    assert predictions.work.leases.claim() is None


@pytest.mark.parametrize(
    "control",
    [
        lambda controls, job_id: controls.extend(job_id, {"seconds": 5.0}),
        lambda controls, job_id: controls.enqueue(job_id, {"learning_rate": 0.1}),
        lambda controls, job_id: controls.retry(job_id, 0),
    ],
    ids=["extend", "enqueue", "retry"],
)
def test_a_predict_job_refuses_requests_about_trials(predictions: Predictions, version: Version, control: Any) -> None:
    """The error says why."""
    job = predictions.accept()
    with pytest.raises(Conflict, match="no trials or budget"):
        control(predictions.work.controls, job.id)

    assert predictions.state(job)[0] == JobState.QUEUED
