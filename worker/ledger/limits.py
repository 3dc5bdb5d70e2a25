"""The number of trials after which a job begins no more."""

from sqlalchemy import select
from sqlmodel import Session, col

from ml.parameters.space import point
from ml.specs import MAX_TRIALS, TrainSpec, TuneSpec
from worker.database.tables import Job, Trial


def trial_limit(session: Session, job: Job, spec: TrainSpec | TuneSpec) -> int:
    """Return the limit of a job with a specification.

    A finite search space ends once all its points were tried. A person may queue a point that was tried before. Such
    trials are added to the limit, if the budget allows it, so that no point is left out.
    """
    tune = spec.as_tune()
    if tune.points is None or tune.sampler.exhaustive:
        return tune.trial_limit
    drawn = points_of(session, job)
    return min(tune.budget.trials or MAX_TRIALS, tune.points + len(drawn) - len(set(drawn)))


def points_of(session: Session, job: Job, without: int | None = None) -> list[frozenset[tuple[str, str]]]:
    """Return the points that the trials of a job try; `without` is the number of a trial that is left out."""
    rows = session.execute(select(col(Trial.number), col(Trial.suggestion)).where(col(Trial.job_id) == job.id))
    return [point(suggestion) for number, suggestion in rows if suggestion is not None and number != without]
