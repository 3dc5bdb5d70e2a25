"""Predict jobs as rows: which version is asked, which images it is given, and what it answered."""

import secrets
from dataclasses import dataclass
from typing import Any, cast

from pydantic import BaseModel, ConfigDict
from sqlalchemy import select
from sqlmodel import Session, col

from ml.artifacts import Saved
from ml.datasets import DatasetInfo, SplitName, is_called, version_of
from worker.database.engine import Database
from worker.database.tables import Artifact, Champion, Job, JobState, ModelVersion, Opening
from worker.errors import Conflict, Fact, NotFound
from worker.ledger.champions import find_version
from worker.ledger.idempotency import Once, remember, remembered
from worker.ledger.leases import Claim, fence
from worker.ledger.packs import drop, end_pack
from worker.ledger.retention import uploads
from worker.ledger.settlement import settle
from worker.ledger.transfer import ancestry
from worker.ledger.transitions import REQUEST, account, clock, note_job
from worker.ledger.uploaded_datasets import dataset_info, know
from worker.prediction.image_sets import Subset

Stored = tuple[str, Saved]  # a file's key in the store, and what was written there


class PredictSpec(BaseModel):
    """What a predict or evaluate job does: a version, once and for all, and the images that it is given."""

    model_config = ConfigDict(frozen=True)

    model: str
    version: int
    dataset: str
    subset: Subset | None = None  # of the data set; None where images were uploaded
    canonical: bool = False  # whether they are brought to the data set's own form first
    # Of a data set that the version was not trained on: how it is divided, and how its images get the network's size.
    split: SplitName | None = None
    resize: str | None = None

    @property
    def opens_test(self) -> bool:
        """Whether test images are among them."""
        return self.subset in ("test", "all")

    @property
    def evaluates(self) -> bool:
        """Whether the images are of another data set than the version was trained on."""
        return self.split is not None


@dataclass(frozen=True)
class PredictionTask:
    """The work of a claimed pack that predicts."""

    spec: PredictSpec
    version: ModelVersion
    graph: Artifact
    split: SplitName  # with the seed it says which images train and which validate
    seed: int
    images: int | None  # that the version's job was held to
    upload: Artifact | None


def asked_version(database: Database, model: str, version: int | None, dataset: str | None) -> ModelVersion:
    """The version that a request means, by default the champion of its data set, by default of mnist.

    NotFound where there is none, or it was trained on another data set.
    """
    with database.reading() as session:
        if version is None:
            return _champion(session, model, dataset or "mnist")
        found = find_version(session, model, version)
    if dataset is not None and not is_called(found.dataset, dataset):
        raise NotFound(f"version {version} of {model} was trained on {found.dataset}")
    return found


def check_images(database: Database, version: ModelVersion) -> None:
    """Conflict where the data set is another than the one that a version was trained on, though it has its name."""
    with database.reading() as session:
        dataset = dataset_info(session, version.dataset)
    if dataset.sha256 != version.dataset_sha256:
        name = f"version {version.version} of {version.model}"
        raise Conflict(f"{name} was trained on other images than {version.dataset} has now; upload those it shall see")


def check_other(
    database: Database, version: ModelVersion, dataset: DatasetInfo, split: SplitName, subset: Subset
) -> None:
    """Conflict where a version cannot be evaluated on a part of a data set, or saw some of it while it was trained."""
    name = f"version {version.version} of {version.model}"
    if dataset.sha256 == version.dataset_sha256:
        raise Conflict(f"{name} was trained on these very images", Fact.OWN_IMAGES)
    if dataset.shape[0] != version.shape[0]:
        raise Conflict(f"{name} takes images of {version.shape[0]} channels, and these have {dataset.shape[0]}")
    if unknown := sorted(set(dataset.classes) - set(version.classes)):
        raise Conflict(f"{name} knows no class {', '.join(unknown[:10])}; it can be evaluated on its own classes")
    if split == "official" and dataset.official_test is None:
        raise Conflict("this data set has no official test images; use the split random")
    with database.reading() as session:
        for ancestor, trained in ancestry(session, version):
            if ancestor.dataset_sha256 == dataset.sha256 and (subset, split) != ("test", trained.split):
                began = f"{name} began with {ancestor.model} {ancestor.version}, which was trained on these very images"
                raise Conflict(f'{began}; it can be evaluated on "subset": "test" of "split": "{trained.split}" alone')


def upload_key(version: ModelVersion) -> str:
    """A new key for images that a version shall see.

    They lie with the job that it comes from, which exists already, so that the janitor finds them where a process died
    before the job that needs them was written down.
    """
    return f"{version.job_id}/uploads/{secrets.token_hex(8)}.safetensors"


class PredictionRows:
    """What predict jobs read and write: whoever accepts them, and whoever holds the lease."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def accept(
        self, version: ModelVersion, spec: PredictSpec, upload: Stored | None = None, once: Once | None = None
    ) -> tuple[Job, bool]:
        """Write a new job down, with the images that were stored for it; the job, and whether it is new.

        The job of before where the request has been answered already; KeyReused where its key was another's.
        """
        with self.database.writing() as session:
            if (before := remembered(session, once)) is not None:
                return session.get_one(Job, before.job_id), False
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
                session.add(_artifact(session, job, "upload", upload))
            remember(session, once, job.id)
            return job, True

    def work(self, claim: Claim) -> PredictionTask:
        """What there is to do for a claimed pack; LeaseLost where another has claimed it or the job was cancelled."""
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
        """Write down that the test images are about to be looked at, once a run of a job."""
        with self.database.writing() as session:
            job, _ = fence(session, claim)
            of_run = (col(Opening.job_id) == job.id, col(Opening.run) == job.run)
            if session.scalar(select(Opening).where(*of_run)) is None:
                opening = Opening(
                    dataset_sha256=job.dataset_sha256,
                    split=split,
                    job_id=job.id,
                    run=job.run,
                    version_id=version.id,
                    at=clock(session),
                )
                session.add(opening)

    def finish(self, claim: Claim, answers: Stored, result: dict[str, Any]) -> list[str]:
        """Write down what was found, and end pack and job with it; the paths of files that no row needs any more.

        LeaseLost where another has claimed the pack or the job was cancelled.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            owner = pack.lease_owner
            session.add(_artifact(session, job, "predictions", answers))
            job.result = result
            account(session, job)
            unneeded = end_pack(session, pack) + drop(session, uploads(session, job))
            session.flush()
            account(session, job)
            settle(session, job, owner)
            return unneeded

    def answers(self, job_id: str) -> tuple[Job, Artifact | None]:
        """A job, and the file of what it answered, None where there is none; NotFound where there is no such job."""
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


def _artifact(session: Session, job: Job, kind: str, stored: Stored) -> Artifact:
    path, saved = stored
    session.flush()  # the job that it refers to
    at = clock(session)
    return Artifact(job_id=job.id, trial=0, kind=kind, path=path, sha256=saved.sha256, size=saved.size, created_at=at)
