"""The history checker: rules that every accepted job must satisfy at the end, after any faults."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from acceptance.faults.cluster import Cluster
from acceptance.faults.waiting import PATIENCE
from acceptance.faults.witness import Answer, Witness
from sqlalchemy import select
from sqlmodel import Session, col

from ml.artifacts import load_checkpoint
from ml.errors import CheckpointError
from ml.records import TrialState
from ml.specs import TrainSpec, TuneSpec
from worker.database.engine import Database
from worker.database.tables import Artifact, Event, Job, JobState, Measurement, ModelVersion, Pack, StopReason, Trial


@dataclass(frozen=True)
class Story:
    """All records of one job, and the folder of its files."""

    job: Job
    events: list[Event]  # in the order of their sequence numbers, as are the measurements
    packs: list[Pack]
    trials: list[Trial]
    measurements: list[Measurement]
    artifacts: dict[int, Artifact]  # by id
    versions: list[ModelVersion]
    folder: Path

    @property
    def own(self) -> list[Event]:
        """The events of the job itself."""
        return [event for event in self.events if event.trial is None]

    @property
    def final(self) -> bool:
        """True if the job has ended."""
        return JobState(self.job.state).final

    def measured(self, trial: Trial) -> list[Measurement]:
        """Return a trial's measurements in the order in which they were written."""
        return [m for m in self.measurements if m.trial_id == trial.id]

    def objective(self, row: Measurement | Trial) -> float | None:
        """Return the value that the job's trials are compared by."""
        return row.val_accuracy if self.job.spec["objective"] == "val_accuracy" else row.val_loss

    def best(self, values: Iterable[float]) -> float | None:
        """Return the best of some values."""
        return (max if self.job.maximize else min)(values, default=None)


Rule = Callable[[Story], Iterator[str]]


def verdict(cluster: Cluster, witness: Witness, seconds: float = PATIENCE) -> list[str]:
    """Wait until every job of a witness has ended, and return the violations."""
    witness.until_all_ended(seconds)
    return check(cluster.database, cluster.artifacts, witness.accepted, witness.answers)


def check(database: Database, artifacts: Path, accepted: Sequence[str], answers: Sequence[Answer]) -> list[str]:
    """Return the violations by accepted jobs and by answers, as sentences."""
    found = list(_answers(answers))
    with database.reading() as session:
        for job_id in accepted:
            job = session.get(Job, job_id)
            if job is None:
                found.append(f"job {job_id} was accepted and does not exist")
                continue
            story = _story(session, job, artifacts)
            found += [f"job {job_id}: {words}" for rule in RULES for words in rule(story)]
    return found


def _story(session: Session, job: Job, folder: Path) -> Story:
    def rows(table: Any, *order: Any) -> list[Any]:
        return list(session.scalars(select(table).where(table.job_id == job.id).order_by(*order)))

    trials = rows(Trial, col(Trial.number))
    of_trials = col(Measurement.trial_id).in_([trial.id for trial in trials])  # rows of the last release have no job
    measurements = session.scalars(
        select(Measurement).where(of_trials).order_by(col(Measurement.sequence), col(Measurement.step))
    )
    return Story(
        job=job,
        events=rows(Event, col(Event.sequence)),
        packs=rows(Pack, col(Pack.id)),
        trials=trials,
        measurements=list(measurements),
        artifacts={artifact.id: artifact for artifact in rows(Artifact, col(Artifact.id))},
        versions=rows(ModelVersion, col(ModelVersion.run)),
        folder=folder,
    )


def _answers(answers: Sequence[Answer]) -> Iterator[str]:
    for answer in answers:
        if answer.status >= 500 and (answer.status != 503 or answer.retry_after is None):
            waits = "with" if answer.retry_after is not None else "without"
            yield f"{answer.request} was answered {answer.status} {waits} Retry-After"


def one_end(story: Story) -> Iterator[str]:
    """Check that each run begins with `queued` and ends in one final state, and the last run in the job's state."""
    own = story.own
    if not own or own[0].state != JobState.QUEUED:
        yield "its history does not begin with queued"
    if not story.final:
        yield f"it has not ended but is {story.job.state}"
    elif own and own[-1].state != story.job.state and _ends(own[-1]):
        yield f"it is {story.job.state}, and its history ends in {own[-1].state}"
    for number, run in enumerate(_runs(own), 1):
        ends = [event.state for event in run if _ends(event)]
        if len(ends) != 1 and story.final:
            yield f"run {number} has {len(ends)} final states: {', '.join(ends)}"
        elif len(ends) == 1 and not _ends(run[-1]):
            yield f"run {number} continues after {ends[0]} with {run[-1].state}"


def _runs(own: list[Event]) -> list[list[Event]]:
    """Return a job's own events by run.

    A run begins with a `queued` after a final state. A `queued` of a job that is still waiting begins no run.
    """
    begins = [at for at in range(1, len(own)) if own[at].state == JobState.QUEUED and _ends(own[at - 1])]
    return [own[begin:end] for begin, end in pairwise([0, *begins, len(own)])]


def _ends(event: Event) -> bool:
    return JobState(event.state).final


def one_writer(story: Story) -> Iterator[str]:
    """Check that no measurement of a pack was written under an older lease than an earlier measurement."""
    pack_of = {trial.id: trial.pack_id for trial in story.trials}
    written: dict[int, list[Measurement]] = defaultdict(list)
    for measurement in story.measurements:
        written[pack_of[measurement.trial_id]].append(measurement)
    for pack in story.packs:
        for before, after in pairwise(written[cast("int", pack.id)]):
            if (after.lease_epoch or 0) < (before.lease_epoch or 0):
                yield (
                    f"pack {pack.id}: a stale writer, of lease epoch {after.lease_epoch}, wrote step {after.step} of "
                    f"{_named(story, after)} after one of epoch {before.lease_epoch}"
                )
        newest = max((m.lease_epoch or 0 for m in written[cast("int", pack.id)]), default=0)
        if newest > pack.lease_epoch:
            yield f"pack {pack.id}: lease epoch {newest} wrote, but the newest epoch is {pack.lease_epoch}"


def no_gap(story: Story) -> Iterator[str]:
    """Check that each trial was measured at its first rungs in order, and at all rungs if it completed."""
    kind = TrainSpec if story.job.kind == "train" else TuneSpec
    spec = kind.model_validate(story.job.spec).as_tune()
    for trial in story.trials:
        steps = [m.step for m in story.measured(trial)]
        rungs = list(spec.rungs(spec.params(trial.params))) if trial.params else []
        if steps != rungs[: len(steps)]:
            yield f"trial {trial.number} was measured at {steps}, not at the first of its rungs {rungs}"
        elif trial.state == TrialState.COMPLETED and steps != rungs:
            yield f"trial {trial.number} completed at {steps}, before the end of its rungs {rungs}"


def true_values(story: Story) -> Iterator[str]:
    """Check that the value of each judged trial is that of its best measurement, and other trials have no value."""
    for trial in story.trials:
        finite = [m for m in story.measured(trial) if m.train_loss is not None and m.val_loss is not None]
        best = story.best(v for m in finite if (v := story.objective(m)) is not None)
        expected = best if TrialState(trial.state).judged else None
        if trial.value != expected:
            yield f"trial {trial.number} is {trial.state} with the value {trial.value}, and measured {best} at best"


def best_is_best(story: Story) -> Iterator[str]:
    """Check that a completed job names the best of its judged trials, and the first of equal ones."""
    job = story.job
    if job.state != JobState.COMPLETED:
        return
    judged = {t.number: t.value for t in story.trials if TrialState(t.state).judged and t.value is not None}
    value = story.best(judged.values())
    trial = min((number for number in judged if judged[number] == value), default=None)
    if (job.best_trial, job.best_value) != (trial, value):
        yield f"its best is trial {job.best_trial} with {job.best_value}, but should be trial {trial} with {value}"


def verified_checkpoint(story: Story) -> Iterator[str]:
    """Check that a completed job's best trial has an undamaged checkpoint whose card names the trial."""
    job = story.job
    if job.state != JobState.COMPLETED or job.best_trial is None:
        return
    of_best = [a for a in story.artifacts.values() if (a.kind, a.trial) == ("checkpoint", job.best_trial)]
    if not of_best:
        yield f"its best trial {job.best_trial} has no checkpoint"
    for artifact in of_best:
        try:
            card = load_checkpoint(story.folder / artifact.path, artifact.sha256).card
        except CheckpointError as error:
            yield f"the checkpoint of trial {artifact.trial}: {error}"
            continue
        told = (card["trial"], card[job.spec["objective"]])
        if told != (job.best_trial, job.best_value):
            yield f"the checkpoint of its best trial is of trial {told[0]} with {told[1]}"


def verified_version(story: Story) -> Iterator[str]:
    """Check that a completed job's best trial is a version, and that the files of all versions are undamaged.

    The version may come from this run or from an earlier one.
    """
    job = story.job
    newest = [version for version in story.versions if version.test_accuracy is not None][-1:]  # the newest winner
    if job.state == JobState.COMPLETED and not newest:
        yield "it is completed, but no version was published"
    for version in newest:
        if job.state == JobState.COMPLETED and (version.trial, version.value) != (job.best_trial, job.best_value):
            yield f"version {version.version} is of trial {version.trial} with {version.value}, not of its best"
    for version in story.versions:
        for kind, artifact_id in (("checkpoint", version.checkpoint_id), ("onnx", version.onnx_id)):
            yield from _verified(story, version, kind, artifact_id)


def _verified(story: Story, version: ModelVersion, kind: str, artifact_id: int) -> Iterator[str]:
    """Check one file of a version; `verified_checkpoint` has already checked the best trial's checkpoint."""
    artifact = story.artifacts.get(artifact_id)
    if artifact is None or (artifact.kind, artifact.trial) != (kind, version.trial):
        yield f"the {kind} of version {version.version} is not of trial {version.trial}"
        return
    if kind == "checkpoint" and version.trial == story.job.best_trial:
        return
    path = story.folder / artifact.path
    if not path.is_file():
        yield f"the {kind} of version {version.version} is missing"
    elif hashlib.sha256(path.read_bytes()).hexdigest() != artifact.sha256:
        yield f"the {kind} of version {version.version} is not what was written"


def silent_after_cancel(story: Story) -> Iterator[str]:
    """Check that nothing is written after a job's `cancelled`."""
    cancelled = min((e.sequence for e in story.own if e.state == JobState.CANCELLED), default=None)
    if cancelled is None:
        return
    for event in story.events:
        if event.trial is not None and event.sequence > cancelled:
            yield f"trial {event.trial} became {event.state} after the job was cancelled"
    for measurement in story.measurements:
        if (measurement.sequence or 0) > cancelled:
            yield f"step {measurement.step} of {_named(story, measurement)} was written after the job was cancelled"


def exact_budget(story: Story) -> Iterator[str]:
    """Check that the numbers of trials have no gap and agree with the reserved number, which is within the limit.

    If the limit on trials ended the job, all of it must be used.
    """
    job = story.job
    numbers = [trial.number for trial in story.trials]
    if numbers != list(range(job.reserved)):
        yield f"{job.reserved} trials were reserved, but their numbers are {numbers}"
    if job.reserved > job.trial_limit:
        yield f"{job.reserved} trials were reserved, but the limit is {job.trial_limit}"
    if story.final and job.stop_reason == StopReason.TRIALS and job.reserved < job.trial_limit:
        yield f"its limit on trials ended it, but {job.reserved} of {job.trial_limit} were reserved"


def all_done(story: Story) -> Iterator[str]:
    """Check that after the end of a job no trial runs and no pack is open or leased."""
    if not story.final:
        return
    for trial in story.trials:
        if trial.state == TrialState.RUNNING:
            yield f"trial {trial.number} still runs"
    for pack in story.packs:
        if not pack.done:
            yield f"pack {pack.id} is not done"
        if pack.lease_owner is not None:
            yield f"pack {pack.id} is leased to {pack.lease_owner}"


def one_order(story: Story) -> Iterator[str]:
    """Check that each event and measurement has a unique sequence number, and none is above the job's counter."""
    numbers = [event.sequence for event in story.events] + [m.sequence for m in story.measurements]
    seen: set[int] = set()
    for number in numbers:
        if number is None:
            yield "a measurement has no sequence number"
        elif number in seen:
            yield f"sequence number {number} was given twice"
        elif number > story.job.sequence:
            yield f"sequence number {number} is above the job's {story.job.sequence}"
        seen |= {number or 0}


def _named(story: Story, measurement: Measurement) -> str:
    return next(f"trial {t.number}" for t in story.trials if t.id == measurement.trial_id)


RULES: list[Rule] = [
    one_end,
    one_writer,
    no_gap,
    true_values,
    best_is_best,
    verified_checkpoint,
    verified_version,
    silent_after_cancel,
    exact_budget,
    all_done,
    one_order,
]
