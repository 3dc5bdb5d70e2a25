"""The process that analyses a job: `python -m worker.analyst`, told what to make by JSON, which it answers with JSON.

Optuna, scipy, scikit-learn and plotly are loaded here and not in the API, which stays small and starts fast.
"""

import sys
from typing import Any

import orjson
from sqlalchemy import select
from sqlmodel import col

from ml.analysis.analysis import analysis
from ml.analysis.figures import figure
from ml.analysis.observations import Observation
from ml.analysis.plots import PlotOptions
from ml.records import OUT_OF_TIME, TrialState
from ml.search import Search
from worker.datasets import Uploaded
from worker.db import Database
from worker.ledger import Ledger
from worker.logs import configure_logging
from worker.posted import tune_spec
from worker.registry import versions_of
from worker.settings import settings
from worker.store import store_of
from worker.tables import Job, ModelVersion, Trial


def observations(database: Database, job_id: str) -> list[Observation]:
    """A job's trials that have their hyper-parameters, by number."""
    with database.reading() as session:
        rows = session.scalars(select(Trial).where(col(Trial.job_id) == job_id).order_by(col(Trial.number)))
        versions = versions_of(session, job_id)
        return [_observation(row, versions.get((row.number, row.value))) for row in rows if row.params is not None]


def search_of(database: Database, job_id: str) -> Search:
    """A job's search, rebuilt from what was recorded."""
    with database.reading() as session:
        search = Search(tune_spec(session.get_one(Job, job_id)))
    records, _ = Ledger(database).changes(job_id, 0)
    for record in records:
        search.apply(record)
    return search


def made(database: Database, order: dict[str, Any]) -> bytes:
    """What is asked for, as JSON: the analysis of a job, or one of its plots."""
    search, trials = search_of(database, order["job"]), observations(database, order["job"])
    if order["plot"] is None:
        return analysis(search, trials).model_dump_json().encode()
    return orjson.dumps(figure(order["plot"], search, trials, PlotOptions(**order["options"])))


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
