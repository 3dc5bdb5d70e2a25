"""Predict jobs that run in the process of the tests."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
from sqlalchemy import select, update
from sqlmodel import col

from ml.records import Stop
from support.worker_tools import Work
from worker.artifacts.folder import FolderStore
from worker.artifacts.store import drop_files
from worker.database.tables import Artifact, Job, ModelVersion, Opening, PackPurpose
from worker.ledger.leases import Claim
from worker.prediction.image_sets import Subset
from worker.prediction.rows import PredictionRows, PredictSpec, asked_version
from worker.prediction.work import predict
from worker.training.workbench import Workbench
from worker.uploaded_datasets import DatasetStore


@dataclass
class Orders:
    """A supervisor's orders to a trainer."""

    stop: Stop | None = None
    cancelled: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Predictions:
    """A ledger and its folder of artifacts."""

    work: Work
    artifacts: Path

    @property
    def rows(self) -> PredictionRows:
        """The rows that predict jobs read and write."""
        return PredictionRows(self.work.database)

    def accept(self, subset: Subset = "validation", model: str = "perceptron", dataset: str = "digits") -> Job:
        """Post a job over a subset of a data set, for the champion."""
        version = asked_version(self.work.database, model, None, dataset)
        spec = PredictSpec(model=model, version=version.version, dataset=dataset, subset=subset)
        return self.rows.accept(version, spec)

    def claim(self) -> Claim:
        """Claim the next pack, which must be a pack of a predict job."""
        claim = self.work.leases.claim()
        assert claim is not None
        assert claim.purpose == PackPurpose.PREDICT
        return claim

    def run(self, claim: Claim | None = None, orders: Orders | None = None) -> bool:
        """Predict the images of a pack as a trainer does; return what `predict` returns."""
        store = FolderStore(self.artifacts)
        find = DatasetStore(self.work.database, store, self.artifacts.parent / "cache").find
        bench = Workbench(self.work.database, store, find, orders or Orders(), "cpu", 15)
        self.work.database.on_unneeded = partial(drop_files, store)
        return predict(claim or self.claim(), bench)

    def answers(self, job_id: str) -> list[dict[str, Any]]:
        """Return the predictions of a job, one dict for each line of its file."""
        (file,) = self.files(job_id, "predictions")
        return [orjson.loads(line) for line in (self.artifacts / file.path).read_bytes().splitlines()]

    def files(self, job_id: str, kind: str) -> list[Artifact]:
        """Return a job's files of one kind."""
        with self.work.database.reading() as session:
            of_job = (col(Artifact.job_id) == job_id, col(Artifact.kind) == kind)
            return list(session.scalars(select(Artifact).where(*of_job)))

    def openings(self, job_id: str) -> list[Opening]:
        """Return the openings of test images that a job has made."""
        with self.work.database.reading() as session:
            return list(session.scalars(select(Opening).where(col(Opening.job_id) == job_id)))

    def calibrate(self, **calibration: Any) -> None:
        """Give every version this calibration."""
        with self.work.database.writing() as session:
            session.execute(update(ModelVersion).values(calibration=calibration))

    def state(self, job: Job) -> tuple[str, str | None]:
        """Return a job's state and its error."""
        row = self.work.job(job)
        return row.state, row.error
