"""Stored files as rows: added when a file has been written, deleted when the job no longer needs it."""

from collections.abc import Sequence
from typing import cast

from sqlalchemy import select
from sqlmodel import Session, col

from worker.artifacts.new_files import Stored
from worker.database.clock import clock
from worker.database.engine import note_unneeded
from worker.database.tables import Artifact, Job


def add_file(
    session: Session, job_id: str, kind: str, stored: Stored, *, trial: int = 0, pack_id: int | None = None
) -> int:
    """Write a stored file down as one of a job's; return the id of its row."""
    path, saved = stored
    session.flush()  # the job that the row refers to may be as new
    artifact = Artifact(
        job_id=job_id,
        trial=trial,
        kind=kind,
        pack_id=pack_id,
        path=path,
        sha256=saved.sha256,
        size=saved.size,
        created_at=clock(session),
    )
    session.add(artifact)
    session.flush()
    return cast("int", artifact.id)


def delete_files(session: Session, artifacts: Sequence[Artifact]) -> None:
    """Delete rows of files; a file that no other row names is removed after the commit."""
    paths = {artifact.path for artifact in artifacts}
    for artifact in artifacts:
        session.delete(artifact)
    session.flush()
    if paths:
        named = session.scalars(select(col(Artifact.path)).where(col(Artifact.path).in_(paths)))
        note_unneeded(session, paths.difference(named))


def uploads(session: Session, job: Job) -> list[Artifact]:
    """Return the files with images that were uploaded for a job."""
    of_job = (col(Artifact.job_id) == job.id, col(Artifact.kind) == "upload")
    return list(session.scalars(select(Artifact).where(*of_job)))


def delete_uploads(session: Session, job: Job) -> None:
    """Delete the images that were uploaded for a job: a job that has ended does not need them."""
    delete_files(session, uploads(session, job))
