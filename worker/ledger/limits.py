"""The number of trials after which a job begins no more."""

from sqlalchemy import select
from sqlmodel import Session, col

from ml.parameters.space import point
from ml.specs import MAX_TRIALS, TrainSpec, TuneSpec
from worker.database.tables import Job, Trial


def trial_limit(session: Session, job: Job, spec: TrainSpec | TuneSpec) -> int:
    """Return the limit of a job with a specification.

    A finite search space ends once all its points were tried. A point can be tried again: two trainers may draw it
    before either knows of the other, and a person may queue it. Such trials are added to the limit, if the budget
    allows it, so that no point is left out.
    """
    tune = spec.as_tune()
    if tune.points is None or tune.sampler.exhaustive:
        return tune.trial_limit
    begun = session.scalars(select(col(Trial.suggestion)).where(col(Trial.job_id) == job.id)).all()
    drawn = [point(suggestion) for suggestion in begun if suggestion is not None]
    return min(tune.budget.trials or MAX_TRIALS, tune.points + len(drawn) - len(set(drawn)))
