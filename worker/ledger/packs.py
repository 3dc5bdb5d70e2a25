"""Packs as rows: what is made, divided and ended inside the transaction of whoever holds the job's lock."""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import select
from sqlmodel import Session, col

from ml.records import TrialState
from ml.seeds import SeedPurpose, derive
from worker.database.tables import Artifact, Job, Pack, PackPurpose, Trial
from worker.ledger.transitions import end_trial


def new_pack(session: Session, job: Job, first: int) -> Pack:
    """A pack to train in, whose stream is that of its first trial."""
    stream_seed = derive(int(job.spec["seed"]), SeedPurpose.STREAM, first)
    pack = Pack(job_id=job.id, purpose=PackPurpose.TRAIN, key="", lanes=1, stream_seed=stream_seed)
    session.add(pack)
    session.flush()
    return pack


def prediction_pack(session: Session, job: Job) -> Pack:
    """The pack of a job that classifies images, made when it is claimed: a release that knows none begins none."""
    pack = Pack(job_id=job.id, purpose=PackPurpose.PREDICT, key="", lanes=0)
    session.add(pack)
    session.flush()
    return pack


def running(session: Session, pack: Pack) -> list[Trial]:
    """The trials of a pack that have not ended, in the order of their numbers."""
    of_pack = (col(Trial.pack_id) == pack.id, col(Trial.state) == TrialState.RUNNING)
    return list(session.scalars(select(Trial).where(*of_pack).order_by(col(Trial.number))))


def kept(session: Session, pack: Pack) -> list[Artifact]:
    """The checkpoints that a pack can go on from, the newest first."""
    of_pack = (col(Artifact.pack_id) == pack.id, col(Artifact.kind) == "pack")
    return list(session.scalars(select(Artifact).where(*of_pack).order_by(col(Artifact.id).desc())))


def divide(session: Session, pack: Pack, groups: Sequence[Sequence[Trial]]) -> None:
    """Move trials of a pack to packs of their own, which go on from the same stream and checkpoints."""
    checkpoints = kept(session, pack)
    for trials in groups:
        other = Pack(
            job_id=pack.job_id,
            purpose=pack.purpose,
            key=pack.key,
            lanes=len(trials),
            stream_seed=pack.stream_seed,
            position=pack.position,
            parted=True,
            lease_epoch=pack.lease_epoch,  # so that of all that is recorded of a trial no epoch is before another
        )
        session.add(other)
        session.flush()
        for lane, trial in enumerate(trials):
            trial.pack_id, trial.lane = cast("int", other.id), lane
        for artifact in reversed(checkpoints):
            copy = artifact.model_dump(exclude={"id", "pack_id"})
            session.add(Artifact(**copy, pack_id=other.id))
            session.flush()


def end_pack(session: Session, pack: Pack) -> list[str]:
    """Take a pack out of work; the paths of files that no row needs any more."""
    pack.done = True
    pack.lease_owner = pack.lease_expires_at = None
    return drop(session, kept(session, pack))


def end_running(session: Session, job: Job, pack: Pack, state: TrialState, reason: str, by: str | None) -> None:
    """End whatever still runs in a pack."""
    for trial in running(session, pack):
        end_trial(session, job, trial, state, reason, by)


def drop(session: Session, artifacts: Sequence[Artifact]) -> list[str]:
    """Delete rows of artifacts; the paths that no other row names."""
    paths = {artifact.path for artifact in artifacts}
    for artifact in artifacts:
        session.delete(artifact)
    session.flush()
    named = set(session.scalars(select(col(Artifact.path)).where(col(Artifact.path).in_(paths)))) if paths else set()
    return sorted(paths - named)
