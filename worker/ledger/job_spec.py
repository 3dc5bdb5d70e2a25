"""What a job asks for, as it was posted."""

from ml.specs import TrainSpec, TuneSpec
from worker.database.tables import Job


def spec_of(job: Job) -> TrainSpec | TuneSpec:
    """What was posted, with its budget as it is now."""
    return (TrainSpec if job.kind == "train" else TuneSpec).model_validate(job.spec)


def tune_spec(job: Job) -> TuneSpec:
    """The work that a job asks for."""
    return as_tune(spec_of(job))


def as_tune(spec: TrainSpec | TuneSpec) -> TuneSpec:
    """A specification as that of a search, which training is one of one trial."""
    return spec.as_tune() if isinstance(spec, TrainSpec) else spec
