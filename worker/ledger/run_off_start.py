"""The start of a run-off: rows for the best trials on fresh seeds, and a pack for those that train together."""

from collections import defaultdict
from typing import cast

from sqlalchemy import func, select
from sqlmodel import Session, col

from ml.records import TrialState
from ml.seeds import SeedPurpose, derive
from ml.specs import TuneSpec
from ml.tuning.keys import key_of
from worker.database.tables import Job, Pack, PackPurpose, Rerun, Trial
from worker.ledger.job_spec import tune_spec
from worker.ledger.retention import finalists

MAX_SEEDS = 1000  # of one run of a job; the next run has other seeds


def begin_run_off(session: Session, job: Job) -> int:
    """Write down what the run-off of a locked job's present run trains.

    Returns:
        The number of trainings. It is 0 if the job has no run-off or only one finalist, or if its run-off was begun
        before.
    """
    numbers = finalists(session, job)
    if len(numbers) < 2 or _begun(session, job):
        return 0
    spec = tune_spec(session, job)
    groups = _groups(session, job, spec, numbers)
    seeds = spec.run_off.seeds if spec.run_off else 0
    for seed in range(seeds):
        split_seed = derive(spec.seed, SeedPurpose.RUN_OFF, job.run * MAX_SEEDS + seed)
        for key, together in groups:
            _add_pack(session, job, key, together, seed, split_seed)
    return seeds * len(numbers)


def give_up(session: Session, pack: Pack, how: str) -> None:
    """Mark the trainings of a pack that cannot be worked on as failed; the run-off is decided without their trials."""
    of_pack = (col(Rerun.pack_id) == pack.id, col(Rerun.state).is_(None))
    for rerun in session.scalars(select(Rerun).where(*of_pack)):
        rerun.state, rerun.reason = TrialState.FAILED, how


def last_reruns(session: Session, job: Job) -> list[Rerun]:
    """Return the trainings of a job's last run-off, by trial and seed; empty if it has begun none."""
    last = select(func.max(col(Rerun.run))).where(col(Rerun.job_id) == job.id).scalar_subquery()
    of_last = (col(Rerun.job_id) == job.id, col(Rerun.run) == last)
    return list(session.scalars(select(Rerun).where(*of_last).order_by(col(Rerun.trial), col(Rerun.seed))))


def _begun(session: Session, job: Job) -> bool:
    of_run = (col(Rerun.job_id) == job.id, col(Rerun.run) == job.run)
    return session.scalar(select(col(Rerun.id)).where(*of_run).limit(1)) is not None


def _groups(session: Session, job: Job, spec: TuneSpec, numbers: list[int]) -> list[tuple[str, list[int]]]:
    """Return groups of trials that train together with their key; a group has at most as many as in the search."""
    of_job = (col(Trial.job_id) == job.id, col(Trial.number).in_(numbers))
    by_key: dict[str, list[int]] = defaultdict(list)
    for trial in session.scalars(select(Trial).where(*of_job).order_by(col(Trial.number))):
        by_key[str(key_of(spec, spec.params(trial.params or {})))].append(trial.number)
    width = job.lanes or 1
    return [(key, same[i : i + width]) for key, same in by_key.items() for i in range(0, len(same), width)]


def _add_pack(session: Session, job: Job, key: str, numbers: list[int], seed: int, split_seed: int) -> None:
    stream_seed = derive(split_seed, SeedPurpose.STREAM, numbers[0])
    pack = Pack(job_id=job.id, purpose=PackPurpose.RUN_OFF, key=key, lanes=len(numbers), stream_seed=stream_seed)
    session.add(pack)
    session.flush()
    for trial in numbers:
        pack_id = cast("int", pack.id)
        session.add(Rerun(job_id=job.id, run=job.run, trial=trial, seed=seed, split_seed=split_seed, pack_id=pack_id))
    session.flush()
