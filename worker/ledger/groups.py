"""Groups: the experiments of a collection, posted together, each as its own job.

All jobs of a group are written in one transaction. From then on the work depends on the jobs alone; the group only
lists them.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import select
from sqlmodel import Session, col

from ml.specs import TuneSpec
from worker.database.clock import clock
from worker.database.engine import Database
from worker.database.tables import GroupMember, Job, JobGroup
from worker.errors import Fact, NotFound
from worker.ledger.idempotency import Once, remember, remembered
from worker.ledger.ledger import new_job

SPACING = 1e-6  # seconds between the jobs of a group, so that workers begin its experiments in order


@dataclass(frozen=True)
class Posted:
    """The collection that a group was posted from, and how."""

    collection: str
    scale: float
    seed: int


class Groups:
    """The requests that make groups."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def accept(self, posted: Posted, specs: Mapping[str, TuneSpec], once: Once | None = None) -> JobGroup:
        """Write down one job for each experiment, in their order, and the group; all of it or nothing.

        Returns:
            The group. A request that is sent again returns the group that it made before.

        Raises:
            KeyReused: if the Idempotency-Key came with another request before.
        """
        with self.database.writing() as session:
            if (before := remembered(session, once)) is not None:
                return _group_of(session, before.job_id)
            jobs = [new_job(session, spec, SPACING * place) for place, spec in enumerate(specs.values())]
            group = JobGroup(
                id=secrets.token_hex(6),
                collection=posted.collection,
                scale=posted.scale,
                seed=posted.seed,
                created_at=clock(session),
            )
            session.add(group)
            session.flush()
            for place, (name, job) in enumerate(zip(specs, jobs, strict=True)):
                session.add(GroupMember(group_id=group.id, position=place, experiment=name, job_id=job.id))
            remember(session, once, jobs[0].id)
            return group


def find_group(session: Session, group_id: str) -> JobGroup:
    """Return a group by its id.

    Raises:
        NotFound: if there is no such group.
    """
    group = session.get(JobGroup, group_id)
    if group is None:
        raise NotFound("there is no such group", Fact.NO_GROUP)
    return group


def newest_groups(session: Session, limit: int) -> list[JobGroup]:
    """Return the groups that were posted last, the newest first."""
    newest = select(JobGroup).order_by(col(JobGroup.created_at).desc(), col(JobGroup.id)).limit(limit)
    return list(session.scalars(newest))


def members(session: Session, group: JobGroup) -> list[tuple[str, Job]]:
    """Return each experiment's name and job, in the order of the collection."""
    joined = select(GroupMember, Job).join(Job, col(Job.id) == col(GroupMember.job_id))
    rows = session.execute(joined.where(col(GroupMember.group_id) == group.id).order_by(col(GroupMember.position)))
    return [(member.experiment, job) for member, job in rows]


def _group_of(session: Session, job_id: str) -> JobGroup:
    member = select(col(GroupMember.group_id)).where(col(GroupMember.job_id) == job_id)
    return find_group(session, session.execute(member).scalar_one())
