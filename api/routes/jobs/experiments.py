"""Experiments: submit a built-in collection of jobs at once, and see them together as a group."""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlmodel import Session

from api.deps import DatabaseDep, OnceDep
from api.views.jobs import summary
from api.views.schemas import JobPublic
from ml.errors import Problem, SpecError, UnknownName
from ml.presets import Collection, collection, collections
from ml.presets.scaling import scaled
from ml.specs import TuneSpec
from worker.database.clock import to_datetime
from worker.database.tables import JobGroup, JobState
from worker.errors import Fact, NotFound
from worker.ledger.groups import Groups, Posted, find_group, members, newest_groups
from worker.supervision.notify import wake_worker

router = APIRouter(prefix="/jobs/experiments", tags=["experiments"])

SHOWN_GROUPS = 20  # the newest groups, in the list


class ExperimentsRequest(BaseModel):
    """The experiments to run, and their scale."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    collection: str = Field(max_length=100, description="a collection's name; GET /jobs/experiments lists them")
    scale: float = Field(
        1.0, gt=0, le=1, description="share of images, trials and epochs; 0.01 is a trial run of minutes"
    )
    seed: int = Field(0, ge=0, lt=2**32, description="seed of every job")
    only: list[Annotated[str, Field(max_length=100)]] | None = Field(
        None, min_length=1, max_length=100, description="names of the experiments to run; null: the whole collection"
    )

    def specs(self) -> dict[str, TuneSpec]:
        """Return the specifications to submit, by experiment.

        Raises:
            SpecError: if the collection or an experiment does not exist.

        """
        found = self._collection()
        known = [experiment.name for experiment in found.experiments]
        wrong = [place for place, name in enumerate(self.only or []) if name not in known]
        if wrong:
            raise SpecError(Problem(("only", place), str(UnknownName("experiment", known))) for place in wrong)
        chosen = [e for e in found.experiments if self.only is None or e.name in self.only]
        return {e.name: scaled(e.spec.model_copy(update={"seed": self.seed}), self.scale) for e in chosen}

    def _collection(self) -> Collection:
        try:
            return collection(self.collection)
        except UnknownName as error:
            raise SpecError([Problem(("collection",), str(error))]) from None


class ExperimentPublic(BaseModel):
    """An experiment that can be submitted."""

    name: str
    title: str
    model: str
    trials: int = Field(description="maximum number of trials at full scale")


class CollectionPublic(BaseModel):
    """A collection of experiments, in the order of submission."""

    name: str
    title: str
    experiments: list[ExperimentPublic]


class GroupSummary(BaseModel):
    """A group: a collection that was submitted."""

    id: str
    collection: str
    scale: float
    seed: int
    created_at: datetime | None


class Member(BaseModel):
    """An experiment of a group, and its job."""

    name: str
    job: JobPublic


class GroupPublic(GroupSummary):
    """A group, its state, and the job of each experiment."""

    state: str = Field(
        description="combined state of the jobs: queued, running, paused, completed, failed or cancelled"
    )
    experiments: list[Member]


class Overview(BaseModel):
    """The collections that can be submitted, and the newest groups."""

    collections: list[CollectionPublic]
    groups: list[GroupSummary] = Field(description=f"at most {SHOWN_GROUPS} groups, newest first")


def _checked_id(group_id: str) -> str:
    # Postgres rejects some texts, such as one with a NUL, before it compares them.
    if not re.fullmatch("[0-9a-f]{1,64}", group_id):
        raise NotFound("there is no such group", Fact.NO_GROUP)
    return group_id


GroupId = Annotated[str, Path(description="a group's id, from the answer to POST"), AfterValidator(_checked_id)]


@router.post("", status_code=202)
def post_experiments(
    request: ExperimentsRequest, database: DatabaseDep, once: OnceDep, response: Response
) -> GroupPublic:
    """Submit one job for each experiment of a collection. Either all jobs are accepted or none."""
    posted = Posted(request.collection, request.scale, request.seed)
    group = Groups(database).accept(posted, request.specs(), once)
    wake_worker()
    response.headers["Location"] = f"/jobs/experiments/{group.id}"
    response.headers["Retry-After"] = "1"
    with database.reading() as session:
        return _group(session, group)


@router.get("")
def list_experiments(database: DatabaseDep) -> Overview:
    """List the collections that can be submitted, and the newest groups."""
    with database.reading() as session:
        groups = [GroupSummary(**_fields(group)) for group in newest_groups(session, SHOWN_GROUPS)]
    return Overview(collections=[_collection(found) for found in collections().values()], groups=groups)


@router.get("/{group_id}")
def get_group(group_id: GroupId, database: DatabaseDep) -> GroupPublic:
    """Return a group with the state and the best trial of each experiment."""
    with database.reading() as session:
        return _group(session, find_group(session, group_id))


def _collection(found: Collection) -> CollectionPublic:
    experiments = [
        ExperimentPublic(name=e.name, title=e.title, model=e.spec.model, trials=e.spec.trial_limit)
        for e in found.experiments
    ]
    return CollectionPublic(name=found.name, title=found.title, experiments=experiments)


def _fields(group: JobGroup) -> dict[str, object]:
    return {**group.model_dump(exclude={"created_at"}), "created_at": to_datetime(group.created_at)}


def _group(session: Session, group: JobGroup) -> GroupPublic:
    found = members(session, group)
    experiments = [Member(name=name, job=JobPublic(**summary(session, job))) for name, job in found]
    return GroupPublic(
        **_fields(group), state=_state([JobState(job.state) for _, job in found]), experiments=experiments
    )


def _state(states: Sequence[JobState]) -> JobState:
    """Return the combined state of jobs.

    It is their common state if they agree, and final only if all of them have ended. A group is paused if every
    unfinished job is paused, else running.
    """
    if len(set(states)) == 1:
        return states[0]
    if all(state.final for state in states):
        return JobState.FAILED if JobState.FAILED in states else JobState.CANCELLED
    left = {state for state in states if not state.final}
    return JobState.PAUSED if left == {JobState.PAUSED} else JobState.RUNNING
