"""Packs as rows: made, divided and ended inside a transaction that holds the job's lock."""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import select
from sqlmodel import Session, col

from ml.records import TrialState
from ml.seeds import SeedPurpose, derive
from worker.database.tables import Artifact, Job, Pack, PackPurpose, Trial
from worker.ledger.files import delete_files
from worker.ledger.transitions import end_trial


def new_pack(session: Session, job: Job, first: int) -> Pack:
    """Add a pack to train in; its stream is the one of its first trial."""
    stream_seed = derive(int(job.spec["seed"]), SeedPurpose.STREAM, first)
    pack = Pack(job_id=job.id, purpose=PackPurpose.TRAIN, key="", lanes=1, stream_seed=stream_seed)
    session.add(pack)
    session.flush()
    return pack


def prediction_pack(session: Session, job: Job) -> Pack:
    """Add the pack of a job that classifies images.

    It is made when it is claimed, so that a worker of an older release, which cannot do such work, never meets it.
    """
    pack = Pack(job_id=job.id, purpose=PackPurpose.PREDICT, key="", lanes=0)
    session.add(pack)
    session.flush()
    return pack


def running(session: Session, pack: Pack) -> list[Trial]:
    """Return the trials of a pack that have not ended, by number."""
    of_pack = (col(Trial.pack_id) == pack.id, col(Trial.state) == TrialState.RUNNING)
    return list(session.scalars(select(Trial).where(*of_pack).order_by(col(Trial.number))))


def pack_checkpoints(session: Session, pack: Pack) -> list[Artifact]:
    """Return the checkpoints that a pack can go on from, the newest first."""
    of_pack = (col(Artifact.pack_id) == pack.id, col(Artifact.kind) == "pack")
    return list(session.scalars(select(Artifact).where(*of_pack).order_by(col(Artifact.id).desc())))


def divide(session: Session, pack: Pack, groups: Sequence[Sequence[Trial]]) -> None:
    """Move each group of a pack's trials to a new pack, which goes on from the same stream and checkpoints."""
    checkpoints = pack_checkpoints(session, pack)
    for trials in groups:
        other = Pack(
            job_id=pack.job_id,
            purpose=pack.purpose,
            key=pack.key,
            lanes=len(trials),
            stream_seed=pack.stream_seed,
            position=pack.position,
            parted=True,
            lease_epoch=pack.lease_epoch,  # so that the epochs recorded for a trial never decrease
        )
        session.add(other)
        session.flush()
        for lane, trial in enumerate(trials):
            trial.pack_id, trial.lane = cast("int", other.id), lane
        for artifact in reversed(checkpoints):
            copy = artifact.model_dump(exclude={"id", "pack_id"})
            session.add(Artifact(**copy, pack_id=other.id))
            session.flush()


def end_pack(session: Session, pack: Pack) -> None:
    """Take a pack out of work, and delete its checkpoints."""
    pack.done = True
    pack.lease_owner = pack.lease_expires_at = None
    delete_files(session, pack_checkpoints(session, pack))


def end_running(session: Session, job: Job, pack: Pack, state: TrialState, reason: str, by: str | None) -> None:
    """End the running trials of a pack."""
    for trial in running(session, pack):
        end_trial(session, job, trial, state, reason, by)
