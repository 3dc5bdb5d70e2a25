"""Predict jobs as rows: the version, the images that it classifies, and its answers."""

import secrets
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlmodel import Session, col

from ml.datasets import DatasetInfo, SplitName, is_called, version_of
from worker.artifacts.new_files import Stored
from worker.database.clock import clock
from worker.database.engine import Database, note_unneeded
from worker.database.tables import Artifact, Champion, Job, JobState, ModelVersion
from worker.errors import Conflict, Fact, NotFound
from worker.ledger.champions import find_version
from worker.ledger.files import add_file, delete_uploads, uploads
from worker.ledger.idempotency import Once, remember, remembered
from worker.ledger.leases import Claim, fence
from worker.ledger.packs import end_pack
from worker.ledger.settlement import settle
from worker.ledger.transfer import ancestry
from worker.ledger.transitions import REQUEST, lease_change, note_job, note_opening
from worker.prediction.image_sets import Subset
from worker.uploaded_datasets import dataset_info, know


class PredictSpec(BaseModel):
    """The specification of a predict or evaluate job: a fixed version, and the images to classify."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    dataset: str
    subset: Subset | None = None  # of the data set; None if images were uploaded
    canonical: bool = False  # bring the images to the data set's own form first
    # Set only to evaluate on another data set: its data split, and the method that resizes its images.
    split: SplitName | None = None
    resize: str | None = None

    @property
    def opens_test(self) -> bool:
        """True if test images are among the images."""
        return self.subset in ("test", "all")

    @property
    def evaluates(self) -> bool:
        """True if the images are of another data set than the version was trained on."""
        return self.split is not None


@dataclass(frozen=True)
class PredictionTask:
    """Everything that a claimed pack's prediction needs."""

    spec: PredictSpec
    version: ModelVersion
    graph: Artifact
    split: SplitName  # with the seed it decides which images train and which validate
    seed: int
    images: int | None  # limit of the version's job
    upload: Artifact | None


def asked_version(database: Database, model: str, version: int | None, dataset: str | None) -> ModelVersion:
    """Return the version that a request asks for.

    Args:
        database: Where versions are found.
        model: A network.
        version: A version's number; None for the champion.
        dataset: The data set that the version was trained on; None for any, or for mnist if `version` is None.

    Raises:
        NotFound: if there is no such version, or if it was trained on another data set.
    """
    with database.reading() as session:
        if version is None:
            return _champion(session, model, dataset or "mnist")
        found = find_version(session, model, version)
    if dataset is not None and not is_called(found.dataset, dataset):
        raise NotFound(f"version {version} of {model} was trained on {found.dataset}")
    return found


def check_images(database: Database, version: ModelVersion) -> None:
    """Check that the data set of a version's name still has the images that the version was trained on.

    Raises:
        Conflict: if it has other images now.
    """
    with database.reading() as session:
        dataset = dataset_info(session, version.dataset)
    if dataset.sha256 != version.dataset_sha256:
        name = f"version {version.version} of {version.model}"
        raise Conflict(
            f"{name} was trained on other images than {version.dataset} has now; upload the images to classify"
        )


def check_other(
    database: Database, version: ModelVersion, dataset: DatasetInfo, split: SplitName, subset: Subset
) -> None:
    """Check that a version can be evaluated on a subset of another data set.

    Raises:
        Conflict: if images or classes do not fit the version, or if it was trained on some of the images.
    """
    name = f"version {version.version} of {version.model}"
    if dataset.sha256 == version.dataset_sha256:
        raise Conflict(f"{name} was trained on these very images", Fact.OWN_IMAGES)
    if dataset.shape[0] != version.shape[0]:
        raise Conflict(f"{name} takes images of {version.shape[0]} channels, but these have {dataset.shape[0]}")
    if unknown := sorted(set(dataset.classes) - set(version.classes)):
        raise Conflict(
            f"{name} does not know the classes {', '.join(unknown[:10])}; use a data set with its own classes"
        )
    if split == "official" and dataset.official_test is None:
        raise Conflict('this data set has no official test images; use the split "random"')
    with database.reading() as session:
        for ancestor, trained in ancestry(session, version):
            if ancestor.dataset_sha256 == dataset.sha256 and (subset, split) != ("test", trained.split):
                began = f"{name} began with {ancestor.model} {ancestor.version}, which was trained on these very images"
                raise Conflict(f'{began}; use "subset": "test" and "split": "{trained.split}"')


def upload_key(version: ModelVersion) -> str:
    """Return a new key for uploaded images that a version is to classify.

    The file lies in the folder of the version's job, which exists already. So the janitor finds it if a process dies
    before it has written the new job down.
    """
    return f"{version.job_id}/uploads/{secrets.token_hex(8)}.safetensors"


class PredictionRows:
    """The reads and writes of predict jobs, for the API that accepts them and the holder of the pack's lease."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def accept(
        self, version: ModelVersion, spec: PredictSpec, upload: Stored | None = None, once: Once | None = None
    ) -> Job:
        """Write a new job down, with the images that were stored for it.

        Returns:
            The job. A request that is sent again returns the job that it made before; its stored images are removed.

        Raises:
            KeyReused: if the Idempotency-Key came with another request before.
        """
        with self.database.writing() as session:
            if (before := remembered(session, once)) is not None:
                note_unneeded(session, [upload[0]] if upload else [])
                return session.get_one(Job, before.job_id)
            dataset = dataset_info(session, spec.dataset) if spec.evaluates else None
            if dataset is not None:
                know(session, dataset)
            job = Job(
                id=secrets.token_hex(6),
                kind="evaluate" if spec.evaluates else "predict",
                spec=spec.model_dump(mode="json"),
                state=JobState.QUEUED,
                model=spec.model,
                dataset=spec.dataset,
                dataset_sha256=dataset.sha256 if dataset else version.dataset_sha256,
                maximize=True,
                trial_limit=0,
                created_at=clock(session),
            )
            session.add(job)
            note_job(session, job, None, REQUEST)
            if upload is not None:
                add_file(session, job.id, "upload", upload)
            remember(session, once, job.id)
            return job

    def work(self, claim: Claim) -> PredictionTask:
        """Return the task of a claimed pack.

        Raises:
            LeaseLost: if another worker has claimed it or the job was cancelled.
        """
        with self.database.writing() as session:
            job, _ = fence(session, claim)
            spec = PredictSpec.model_validate(job.spec)
            version = find_version(session, spec.model, spec.version)
            graph = session.get_one(Artifact, version.onnx_id)
            trained = session.get_one(Job, version.job_id).spec
            seed, images = (0, None) if spec.evaluates else (int(trained["seed"]), trained.get("images"))
            split = spec.split or cast("SplitName", version.split)
            return PredictionTask(spec, version, graph, split, seed, images, next(iter(uploads(session, job)), None))

    def open_test(self, claim: Claim, version: ModelVersion, split: SplitName) -> None:
        """Record that the test images are about to be opened; once for each run of a job."""
        with self.database.writing() as session:
            job, _ = fence(session, claim)
            note_opening(session, job, split, version.id)

    def finish(self, claim: Claim, answers: Stored, result: dict[str, Any]) -> None:
        """Write the result down, and end pack and job with it.

        Raises:
            LeaseLost: if another worker has claimed the pack or the job was cancelled.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            owner = pack.lease_owner
            add_file(session, job.id, "predictions", answers)
            job.result = result
            with lease_change(session, job):
                end_pack(session, pack)
                delete_uploads(session, job)
            settle(session, job, owner)

    def answers(self, job_id: str) -> tuple[Job, Artifact | None]:
        """Return a job and the file of its answers, None if it has none.

        Raises:
            NotFound: if there is no such job.
        """
        with self.database.reading() as session:
            job = session.get(Job, job_id)
            if job is None:
                raise NotFound("there is no such job", Fact.NO_JOB)
            of_job = (col(Artifact.job_id) == job_id, col(Artifact.kind) == "predictions")
            return job, session.scalar(select(Artifact).where(*of_job))


def _champion(session: Session, model: str, dataset: str) -> ModelVersion:
    champions = session.scalars(select(Champion).where(col(Champion.model) == model))
    known = [champion for champion in champions if is_called(champion.dataset, dataset)]
    reigning = max(known, key=lambda champion: version_of(champion.dataset), default=None)
    if reigning is None:
        raise NotFound(f"no version of {model} trained on {dataset} is published", Fact.NOTHING_PUBLISHED)
    return session.get_one(ModelVersion, reigning.version_id)
