"""The process that analyses a job: `python -m worker.analyst`, told what to make by JSON, which it answers with JSON.

Optuna, scipy, scikit-learn and plotly are loaded here and not in the API, which stays small and starts fast.
"""

import sys
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import select
from sqlmodel import Session, col

from ml.analysis.analysis import analysis
from ml.analysis.figures import figure
from ml.analysis.findings import Analysis
from ml.analysis.observations import Observation
from ml.analysis.plots import PlotOptions
from ml.records import OUT_OF_TIME, TrialRecord, TrialState
from ml.search import Search
from ml.specs import TuneSpec
from worker.datasets import Uploaded
from worker.db import Database
from worker.ledger import changes
from worker.logs import configure_logging
from worker.posted import tune_spec
from worker.registry import versions_of
from worker.settings import settings
from worker.store import store_of
from worker.tables import Job, ModelVersion, Trial


@dataclass(frozen=True)
class Material:
    """What an analysis is made of, read at one instant: a search takes long, and a transaction must not wait for it."""

    spec: TuneSpec
    records: list[TrialRecord]  # of all trials, as they changed
    observations: list[Observation]  # the trials that have their hyper-parameters, by number

    @classmethod
    def of(cls, session: Session, job: Job) -> "Material":
        """What was recorded of a job."""
        rows = session.scalars(select(Trial).where(col(Trial.job_id) == job.id).order_by(col(Trial.number)))
        versions = versions_of(session, job.id)
        observed = [_observation(row, versions.get((row.number, row.value))) for row in rows if row.params is not None]
        return cls(tune_spec(job), changes(session, job.id, 0)[0], observed)

    def search(self) -> Search:
        """The job's search, rebuilt."""
        search = Search(self.spec)
        for record in self.records:
            search.apply(record)
        return search

    def analysis(self) -> Analysis:
        """What stands out in it."""
        return analysis(self.search(), self.observations)


def made(database: Database, order: dict[str, Any]) -> bytes:
    """What is asked for, as JSON: the analysis of a job, or one of its plots."""
    with database.at_one_instant() as session:
        material = Material.of(session, session.get_one(Job, order["job"]))
    if order["plot"] is None:
        return material.analysis().model_dump_json().encode()
    options = PlotOptions(**order["options"])
    return orjson.dumps(figure(order["plot"], material.search(), material.observations, options))


def _observation(row: Trial, version: ModelVersion | None) -> Observation:
    figures = row.model_dump(
        include={"number", "val_loss", "val_accuracy", "seconds", "epochs_run", "flops", "weights"}
    )
    state, params = TrialState(row.state), row.params or {}
    figures["latency_seconds"] = None if version is None else version.latency_seconds
    figures["out_of_time"] = row.reason == OUT_OF_TIME
    return Observation(state=state, params=params, began=row.created_at, ended=row.finished_at, **figures)


def main() -> None:
    """Answer one order."""
    configure_logging("analyst")
    config = settings()
    database = Database(config.database)
    Uploaded(database, store_of(config), config.dataset_cache).serve()  # a job's specification may name one
    sys.stdout.buffer.write(made(database, orjson.loads(sys.stdin.buffer.read())))
    database.close()


if __name__ == "__main__":
    main()
