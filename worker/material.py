"""The recorded data that the analysis of a job is made from."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlmodel import Session, col

from ml.analysis.analysis import analysis
from ml.analysis.findings import Analysis
from ml.analysis.observations import Observation
from ml.records import OUT_OF_TIME, TrialRecord, TrialState
from ml.specs import TuneSpec
from ml.tuning.search import Search
from worker.database.tables import Job, ModelVersion, Pack, Trial
from worker.ledger.champions import versions_of
from worker.ledger.job_spec import tune_spec
from worker.ledger.ledger import changes


@dataclass(frozen=True)
class Material:
    """The trials of a job, read in one transaction.

    An analysis rebuilds the search, which takes long; no transaction stays open meanwhile.
    """

    spec: TuneSpec
    records: list[TrialRecord]  # all changes of trials, oldest first
    observations: list[Observation]  # the trials that have hyper-parameters, in order of their numbers

    @classmethod
    def of(cls, session: Session, job: Job) -> "Material":
        """Read the records of a job."""
        of_job = select(Trial, Pack).join(Pack, col(Pack.id) == col(Trial.pack_id)).where(col(Trial.job_id) == job.id)
        rows = session.execute(of_job.order_by(col(Trial.number))).all()
        versions = versions_of(session, job.id)
        observed = [
            _observation(row, pack, versions.get((row.number, row.value)))
            for row, pack in rows
            if row.params is not None
        ]
        return cls(tune_spec(session, job), changes(session, job.id, 0)[0], observed)

    def search(self) -> Search:
        """Rebuild the search of the job."""
        search = Search(self.spec)
        for record in self.records:
            search.apply(record)
        return search

    def analysis(self) -> Analysis:
        """Return the analysis of the job."""
        return analysis(self.search(), self.observations)


def _observation(row: Trial, pack: Pack, version: ModelVersion | None) -> Observation:
    figures = row.model_dump(
        include={"number", "val_loss", "val_accuracy", "seconds", "epochs_run", "flops", "weights"}
    )
    state, params = TrialState(row.state), row.params or {}
    figures["latency_seconds"] = None if version is None else version.latency_seconds
    figures["out_of_time"] = row.reason == OUT_OF_TIME
    # Trials that were moved to another pack keep the minibatches, and so the seed, of their first one.
    figures |= {"pack": pack.stream_seed or pack.id, "chosen": row.enqueued is not None}
    return Observation(state=state, params=params, began=row.created_at, ended=row.finished_at, **figures)
