"""The ledger: what happens to jobs and trials, written once and only by whoever holds the lease."""

import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from sqlalchemy import func, select
from sqlmodel import Session, col

from ml.artifacts import Saved
from ml.records import Event, Finished, Measured, PackRecord, RungResult, Started, TrialRecord, TrialState
from ml.specs import TrainSpec, TuneSpec
from worker.database.engine import Database
from worker.database.tables import Artifact, Job, JobState, Measurement, Trial
from worker.ledger.idempotency import Once, remember, remembered
from worker.ledger.leases import Claim, fence
from worker.ledger.packs import divide, drop, kept, running
from worker.ledger.retention import leads, outdone, worth_keeping
from worker.ledger.settlement import spent
from worker.ledger.transfer import resolved
from worker.ledger.transitions import REQUEST, begin_trial, clock, end_trial, note_job, stamp
from worker.ledger.uploaded_datasets import know

Checkpointed = tuple[str, Saved]  # a checkpoint's path, and what was written there


def new_job(session: Session, spec: TrainSpec | TuneSpec, after: float = 0.0) -> Job:
    """Write a new job down, as if it had come so many seconds later: of jobs that come together, which is first."""
    know(session, spec.dataset)
    tune, spec = spec.as_tune(), resolved(session, spec)
    job = Job(
        id=secrets.token_hex(6),
        kind="train" if isinstance(spec, TrainSpec) else "tune",
        spec=spec.model_dump(mode="json"),
        state=JobState.QUEUED,
        model=spec.model,
        dataset=spec.dataset.name,
        dataset_sha256=spec.dataset.sha256,
        maximize=spec.maximize,
        trial_limit=tune.trial_limit,
        seconds_limit=tune.budget.seconds,
        created_at=clock(session) + after,
    )
    session.add(job)
    note_job(session, job, None, REQUEST)
    return job


@dataclass(frozen=True)
class OpenedPack:
    """A claimed pack, and the checkpoints that it can go on from, the newest first."""

    record: PackRecord
    checkpoints: list[Artifact]


class Ledger:
    """What becomes of jobs and their trials."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def accept(self, spec: TrainSpec | TuneSpec, once: Once | None = None) -> Job:
        """Write a new job down; from here on it is not lost.

        The job of before where the request has been answered already; KeyReused where its key was another's.
        """
        with self.database.writing() as session:
            if (before := remembered(session, once)) is not None:
                return session.get_one(Job, before.job_id)
            job = new_job(session, spec)
            remember(session, once, job.id)
            return job

    def pack(self, claim: Claim) -> OpenedPack:
        """A claimed pack as it was left; LeaseLost where another has claimed it."""
        with self.database.writing() as session:
            _, pack = fence(session, claim)
            trials = session.scalars(
                select(Trial).where(col(Trial.pack_id) == claim.pack_id).order_by(col(Trial.number))
            ).all()
            rungs = _rungs(session, claim.pack_id)
            record = PackRecord(
                stream_seed=cast("int", pack.stream_seed),
                trials=[_record(trial, rungs=rungs[cast("int", trial.id)]) for trial in trials],
                lanes=pack.lanes,
                parted=pack.parted,
            )
            return OpenedPack(record, kept(session, pack))

    def reserve(self, claim: Claim, fits: Callable[[int], bool]) -> TrialRecord | None:
        """One more trial for a claimed pack; None where the job begins no more, or `fits` refuses the next number."""
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            begins = job.state == JobState.RUNNING and spent(session, job) is None
            if not begins or not fits(job.reserved):
                return None
            return TrialRecord(begin_trial(session, job, pack, pack.lease_owner).number, TrialState.RUNNING)

    def lanes(self, job_id: str) -> int | None:
        """How many trials of a job train together; None before it has run."""
        with self.database.reading() as session:
            return session.get_one(Job, job_id).lanes

    def settle_pack(self, claim: Claim, key: str, lanes: int) -> int:
        """Note what a claimed pack's trials share, and how many lanes it has: the job's, which its first pack settles.

        One that was halved since trainers died on it keeps its fewer.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            job.lanes = job.lanes or lanes
            pack.lanes = min(pack.lanes, job.lanes) if pack.parted else job.lanes
            pack.key = key
            return pack.lanes

    def divide(self, claim: Claim, groups: Sequence[Sequence[int]]) -> None:
        """Give running trials of the claimed pack, by number, packs of their own."""
        with self.database.writing() as session:
            _, pack = fence(session, claim)
            trials = {trial.number: trial for trial in running(session, pack)}
            still = [[trials[n] for n in group if n in trials] for group in groups]  # somebody may have cancelled one
            divide(session, pack, [group for group in still if group])

    def record(self, claim: Claim, events: Sequence[Event], saved: dict[int, Checkpointed]) -> list[str]:
        """Write down what happened to trials of the claimed pack, all of it or nothing.

        What is said of a trial that somebody has cancelled is left out. `saved` has the checkpoint of each trial that
        is worth keeping. Returns the paths of files that no row needs any more. LeaseLost where another has claimed
        the pack or it was ended.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            numbers = {event.number for event in events}
            of_pack = (col(Trial.pack_id) == pack.id, col(Trial.number).in_(numbers))
            trials = {trial.number: trial for trial in session.scalars(select(Trial).where(*of_pack))}
            unneeded = {path for path, _ in saved.values()}
            for event in events:
                trial = trials.get(event.number)
                if trial is None or trial.state != TrialState.RUNNING:
                    continue
                match event:
                    case Started():
                        _start(job, trial, event)
                    case Measured():
                        _measure(session, job, trial, event, claim)
                    case Finished():
                        _finish(session, job, trial, event, pack.lease_owner)
                        if event.number in saved:
                            unneeded -= _crown(session, job, trial, saved[event.number])
                session.flush()
            return sorted(unneeded | set(drop(session, outdone(session, job)) if saved else []))

    def worth_keeping(self, claim: Claim, number: int, value: float) -> bool:
        """Whether a trial's checkpoint would be kept if it ended with this value."""
        with self.database.reading() as session:
            trial = session.scalars(select(Trial).where(*_of(claim.job_id, number))).one()
            return worth_keeping(session, session.get_one(Job, claim.job_id), trial, value)

    def keep(self, claim: Claim, position: int, saved: Checkpointed) -> list[str]:
        """Note a checkpoint of the claimed pack; the paths of files that no row needs any more.

        The one before stays, for the case that this one is damaged.
        """
        path, file = saved
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            before = kept(session, pack)
            pack.position, pack.lost_leases, pack.not_before = position, 0, None
            first = session.scalar(select(func.min(Trial.number)).where(col(Trial.pack_id) == pack.id)) or 0
            artifact = _artifact(session, job, first, "pack", path, file)
            artifact.pack_id = pack.id
            session.add(artifact)
            session.flush()
            return drop(session, before[1:])

    def discard(self, claim: Claim, checkpoint: Artifact, why: str) -> None:
        """Forget a checkpoint of the claimed pack that is damaged; the janitor removes its file."""
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            session.delete(session.get_one(Artifact, checkpoint.id))
            note_job(session, job, f"pack {pack.id} cannot go on from a checkpoint: {why}", pack.lease_owner)

    def changes(self, job_id: str, after: int) -> tuple[list[TrialRecord], int]:
        """The trials of a job that changed after number `after` of its counter, and the number to ask from next."""
        with self.database.reading() as session:
            return changes(session, job_id, after)


def changes(session: Session, job_id: str, after: int) -> tuple[list[TrialRecord], int]:
    """What `Ledger.changes` gives, as a session sees it."""
    changed = (col(Trial.job_id) == job_id, col(Trial.sequence) > after)
    trials = session.scalars(select(Trial).where(*changed).order_by(col(Trial.sequence))).all()
    if not trials:
        return [], after
    objective = session.get_one(Job, job_id).spec["objective"]
    values = _values(session, job_id, after, objective)
    return [_record(t, values=values[cast("int", t.id)]) for t in trials], trials[-1].sequence


def _record(trial: Trial, **more: Any) -> TrialRecord:
    """A row as a search needs it."""
    return TrialRecord(
        trial.number,
        TrialState(trial.state),
        trial.suggestion,
        trial.attrs,
        value=trial.value,
        enqueued=trial.enqueued,
        reason=trial.reason or "",
        start_step=trial.start_step,
        lane=trial.lane,
        **more,
    )


def _rungs(session: Session, pack_id: int) -> dict[int, dict[int, RungResult]]:
    """What was measured of a pack's trials, by trial id and step."""
    rows = session.scalars(
        select(Measurement).join(Trial, col(Trial.id) == Measurement.trial_id).where(col(Trial.pack_id) == pack_id)
    )
    names = {field.name for field in fields(RungResult)}
    found: dict[int, dict[int, RungResult]] = defaultdict(dict)
    for row in rows:
        found[row.trial_id][row.step] = RungResult(**row.model_dump(include=names))
    return found


def _start(job: Job, trial: Trial, event: Started) -> None:
    """A trial has its hyper-parameters."""
    trial.params, trial.suggestion, trial.attrs = event.params, event.suggestion, event.attrs
    trial.init_seed, trial.start_step, trial.lane = event.init_seed, event.start_step, event.lane
    trial.flops, trial.weights = event.flops, event.weights
    stamp(job, trial)


def _measure(session: Session, job: Job, trial: Trial, event: Measured, claim: Claim) -> None:
    """A trial has reached a rung."""
    row = Measurement(trial_id=cast("int", trial.id), job_id=job.id, **asdict(event.measurement))
    row.sequence, row.lease_epoch = stamp(job, trial), claim.epoch
    session.add(row)
    trial.attrs = event.attrs
    trial.epochs_run = event.measurement.epoch
    trial.seconds += event.measurement.seconds


def _finish(session: Session, job: Job, trial: Trial, event: Finished, by: str | None) -> None:
    """A trial has ended."""
    trial.value = event.value if event.state.judged else None
    if event.best:
        trial.best_epoch = event.best.epoch
        trial.train_loss, trial.val_loss = event.best.train_loss, event.best.val_loss
        trial.val_accuracy = event.best.val_accuracy
    end_trial(session, job, trial, event.state, event.reason, by)


def _crown(session: Session, job: Job, trial: Trial, saved: Checkpointed) -> set[str]:
    """Keep a trial's checkpoint, and let the trial lead its job where it does; what is kept.

    Whether it is worth keeping is asked once, when all that ended together are written: `outdone` names those that are
    not. Asked for each lane it reads the whole front each time, while nobody else can write.
    """
    path, file = saved
    if trial.value is None:
        return set()
    session.add(_artifact(session, job, trial.number, "checkpoint", path, file))
    if leads(job, trial.number, trial.value):
        job.best_trial, job.best_value = trial.number, trial.value
    session.flush()
    return {path}


def _artifact(session: Session, job: Job, trial: int, kind: str, path: str, file: Saved) -> Artifact:
    at = clock(session)
    return Artifact(job_id=job.id, trial=trial, kind=kind, path=path, sha256=file.sha256, size=file.size, created_at=at)


def _of(job_id: str, number: int) -> tuple[Any, ...]:
    return (col(Trial.job_id) == job_id, col(Trial.number) == number)


def _values(session: Session, job_id: str, after: int, objective: str) -> dict[int, dict[int, float]]:
    """The objective by trial id and step, of the trials of a job that changed after a number of its counter."""
    column = Measurement.val_accuracy if objective == "val_accuracy" else Measurement.val_loss
    rows = session.execute(
        select(col(Measurement.trial_id), col(Measurement.step), col(column))
        .join(Trial, col(Trial.id) == Measurement.trial_id)
        .where(col(Trial.job_id) == job_id, col(Trial.sequence) > after, col(column).is_not(None))
    )
    values: dict[int, dict[int, float]] = defaultdict(dict)
    for trial_id, step, value in rows:
        values[trial_id][step] = value
    return values
