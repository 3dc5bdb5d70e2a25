"""The specification of a job, as it was posted."""

from functools import partial

from sqlmodel import Session

from ml.specs import TrainSpec, TuneSpec
from worker.database.tables import Job
from worker.uploaded_datasets import dataset_info


def spec_of(session: Session, job: Job) -> TrainSpec | TuneSpec:
    """Return what was posted, with the budget as it is now and the rules that the job began with."""
    kind: type[TrainSpec | TuneSpec] = TrainSpec if job.kind == "train" else TuneSpec
    return kind.of(job.spec, partial(dataset_info, session)).under(job.rules)


def tune_spec(session: Session, job: Job) -> TuneSpec:
    """Return the job's work as a search; training is one of a single trial."""
    return spec_of(session, job).as_tune()
