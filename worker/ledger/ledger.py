"""The ledger: what happens to jobs and trials, written once and only by the holder of the pack's lease."""

import secrets
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, cast

from sqlalchemy import func, select
from sqlmodel import Session, col

from ml.parameters.space import point
from ml.records import Event, Finished, Measured, PackRecord, RungResult, Started, Stop, TrialRecord, TrialState
from ml.specs import MAX_TRIALS, TrainSpec, TuneSpec
from worker.artifacts.new_files import Stored
from worker.database.clock import clock
from worker.database.engine import Database, note_unneeded
from worker.database.tables import Artifact, Job, JobState, Measurement, Trial
from worker.ledger.files import add_file, delete_files
from worker.ledger.idempotency import Once, remember, remembered
from worker.ledger.job_spec import spec_of
from worker.ledger.leases import Claim, fence
from worker.ledger.limits import points_of, trial_limit
from worker.ledger.packs import divide, pack_checkpoints, running
from worker.ledger.retention import beaten_checkpoints, leads, worth_keeping
from worker.ledger.settlement import spent
from worker.ledger.transfer import resolved
from worker.ledger.transitions import REQUEST, begin_trial, end_trial, note_job, stamp
from worker.uploaded_datasets import know


def new_job(session: Session, spec: TrainSpec | TuneSpec, after: float = 0.0) -> Job:
    """Write a new job down.

    Args:
        session: A writing session.
        spec: The job.
        after: Seconds to add to its time of creation, which puts jobs that are posted together in order.
    """
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
    """The writes that a job's training needs, from the accepted request to the last trial."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def accept(self, spec: TrainSpec | TuneSpec, once: Once | None = None) -> Job:
        """Write a new job down; once this returns, the job is not lost.

        Returns:
            The job. A request that is sent again returns the job that it made before.

        Raises:
            KeyReused: if the Idempotency-Key came with another request before.
        """
        with self.database.writing() as session:
            if (before := remembered(session, once)) is not None:
                return session.get_one(Job, before.job_id)
            job = new_job(session, spec)
            remember(session, once, job.id)
            return job

    def pack(self, claim: Claim) -> OpenedPack:
        """Return a claimed pack as it was left.

        Raises:
            LeaseLost: if another worker has claimed it.
        """
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
            return OpenedPack(record, pack_checkpoints(session, pack))

    def reserve(self, claim: Claim, fits: Callable[[int], bool]) -> TrialRecord | Stop | None:
        """Begin one more trial in a claimed pack.

        Returns:
            The trial. RELEASED if the job is paused: the pack must stop here, and begins the trial when it is resumed.
            None if the job begins no more, or if `fits` refuses the next trial's number.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            if job.state == JobState.PAUSED:
                return Stop.RELEASED
            begins = job.state == JobState.RUNNING and spent(session, job) is None
            if not begins or not fits(job.reserved):
                return None
            return TrialRecord(begin_trial(session, job, pack, pack.lease_owner).number, TrialState.RUNNING)

    def take(self, claim: Claim, drawn: TrialRecord) -> bool:
        """Note the point of a finite space that a trial of a claimed pack will try.

        Returns:
            False if another trial of the job has this point.
        """
        with self.database.writing() as session:
            job, _ = fence(session, claim)
            if point(drawn.suggestion or {}) in points_of(session, job, without=drawn.number):
                return False
            trial = session.scalars(select(Trial).where(*_of(job.id, drawn.number))).one()
            if trial.state == TrialState.RUNNING:  # else it was cancelled meanwhile
                trial.suggestion, trial.attrs = drawn.suggestion, drawn.attrs
                stamp(job, trial)
            return True

    def lanes(self, job_id: str) -> int | None:
        """Return how many trials of a job train together; None before it has run."""
        with self.database.reading() as session:
            return session.get_one(Job, job_id).lanes

    def fix_lanes(self, claim: Claim, key: str, lanes: int) -> int:
        """Set the key of a claimed pack and the number of its lanes, and return that number.

        The first pack of a job fixes the number for all of its packs. A pack that was halved because trainers died on
        it keeps its smaller number.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            job.lanes = job.lanes or lanes
            pack.lanes = min(pack.lanes, job.lanes) if pack.parted else job.lanes
            pack.key = key
            return pack.lanes

    def divide(self, claim: Claim, groups: Sequence[Sequence[int]]) -> None:
        """Move groups of running trials of the claimed pack, by number, to new packs."""
        with self.database.writing() as session:
            _, pack = fence(session, claim)
            trials = {trial.number: trial for trial in running(session, pack)}
            still = [[trials[n] for n in group if n in trials] for group in groups]  # some may be cancelled by now
            divide(session, pack, [group for group in still if group])

    def record(self, claim: Claim, events: Sequence[Event], saved: dict[int, Stored]) -> None:
        """Write down what happened to trials of the claimed pack, all of it or nothing.

        Events of a trial that has ended are ignored, as those of a cancelled one.

        Args:
            claim: The pack.
            events: In their order.
            saved: The stored checkpoint of each ended trial that is worth keeping, by the trial's number. A file that
                is not kept after all is removed.

        Raises:
            LeaseLost: if another worker has claimed the pack, or it has ended.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            numbers = {event.number for event in events}
            of_pack = (col(Trial.pack_id) == pack.id, col(Trial.number).in_(numbers))
            trials = {trial.number: trial for trial in session.scalars(select(Trial).where(*of_pack))}
            unused = set(saved)
            for event in events:
                trial = trials.get(event.number)
                if trial is None or trial.state != TrialState.RUNNING:
                    continue
                match event:
                    case Started():
                        _start(session, job, trial, event)
                    case Measured():
                        _measure(session, job, trial, event, claim)
                    case Finished():
                        _finish(session, job, trial, event, pack.lease_owner)
                        if event.number in unused and trial.value is not None:
                            _keep(session, job, trial, trial.value, saved[event.number])
                            unused.remove(event.number)
                session.flush()
            note_unneeded(session, (saved[number][0] for number in unused))
            if saved:
                delete_files(session, beaten_checkpoints(session, job))

    def worth_keeping(self, claim: Claim, number: int, value: float) -> bool:
        """Return whether a trial's checkpoint would be kept if the trial ended with this value."""
        with self.database.reading() as session:
            trial = session.scalars(select(Trial).where(*_of(claim.job_id, number))).one()
            return worth_keeping(session, session.get_one(Job, claim.job_id), trial, value)

    def keep(self, claim: Claim, position: int, saved: Stored) -> None:
        """Note a checkpoint of the claimed pack.

        The previous checkpoint stays, in case this one is damaged; older ones are deleted.

        Args:
            claim: The pack.
            position: The steps that the pack has taken of its stream.
            saved: The stored checkpoint.
        """
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            before = pack_checkpoints(session, pack)
            pack.position, pack.lost_leases, pack.not_before = position, 0, None
            first = session.scalar(select(func.min(Trial.number)).where(col(Trial.pack_id) == pack.id)) or 0
            add_file(session, job.id, "pack", saved, trial=first, pack_id=pack.id)
            delete_files(session, before[1:])

    def discard(self, claim: Claim, checkpoint: Artifact, why: str) -> None:
        """Delete the row of a damaged checkpoint of the claimed pack; the janitor removes the file an hour later."""
        with self.database.writing() as session:
            job, pack = fence(session, claim)
            session.delete(session.get_one(Artifact, checkpoint.id))
            note_job(session, job, f"pack {pack.id} cannot go on from its newest checkpoint: {why}", pack.lease_owner)

    def changes(self, job_id: str, after: int) -> tuple[list[TrialRecord], int]:
        """Return the trials of a job that changed after a change number, and the number to ask from next."""
        with self.database.reading() as session:
            return changes(session, job_id, after)


def changes(session: Session, job_id: str, after: int) -> tuple[list[TrialRecord], int]:
    """Return the same as `Ledger.changes`, as a session sees it."""
    changed = (col(Trial.job_id) == job_id, col(Trial.sequence) > after)
    trials = session.scalars(select(Trial).where(*changed).order_by(col(Trial.sequence))).all()
    if not trials:
        return [], after
    objective = session.get_one(Job, job_id).spec["objective"]
    values = _values(session, job_id, after, objective)
    return [_record(t, values=values[cast("int", t.id)]) for t in trials], trials[-1].sequence


def _record(trial: Trial, **more: Any) -> TrialRecord:
    """Return a row as the record that a search needs."""
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
    """Return the measurements of a pack's trials, by trial id and step."""
    rows = session.scalars(
        select(Measurement).join(Trial, col(Trial.id) == Measurement.trial_id).where(col(Trial.pack_id) == pack_id)
    )
    names = {field.name for field in fields(RungResult)}
    found: dict[int, dict[int, RungResult]] = defaultdict(dict)
    for row in rows:
        found[row.trial_id][row.step] = RungResult(**row.model_dump(include=names))
    return found


def _start(session: Session, job: Job, trial: Trial, event: Started) -> None:
    """Write down a trial's hyper-parameters and seeds."""
    drawn_now = trial.suggestion is None
    trial.params, trial.suggestion, trial.attrs = event.params, event.suggestion, event.attrs
    trial.init_seed, trial.start_step, trial.lane = event.init_seed, event.start_step, event.lane
    trial.flops, trial.weights = event.flops, event.weights
    stamp(job, trial)
    if drawn_now and _ends_early(job):
        session.flush()
        job.trial_limit = trial_limit(session, job, spec_of(session, job))


def _ends_early(job: Job) -> bool:
    """Return whether a search ends before its budget because its space is finite."""
    return job.kind == "tune" and job.trial_limit != (job.spec["budget"]["trials"] or MAX_TRIALS)


def _measure(session: Session, job: Job, trial: Trial, event: Measured, claim: Claim) -> None:
    """Write down what a trial measured at a rung."""
    row = Measurement(trial_id=cast("int", trial.id), job_id=job.id, **asdict(event.measurement))
    row.sequence, row.lease_epoch = stamp(job, trial), claim.epoch
    session.add(row)
    trial.attrs = event.attrs
    trial.epochs_run = event.measurement.epoch
    trial.seconds += event.measurement.seconds


def _finish(session: Session, job: Job, trial: Trial, event: Finished, by: str | None) -> None:
    """Write down how a trial ended."""
    trial.value = event.value if event.state.judged else None
    if event.best:
        trial.best_epoch = event.best.epoch
        trial.train_loss, trial.val_loss = event.best.train_loss, event.best.val_loss
        trial.val_accuracy = event.best.val_accuracy
    end_trial(session, job, trial, event.state, event.reason, by)


def _keep(session: Session, job: Job, trial: Trial, value: float, saved: Stored) -> None:
    """Add a trial's checkpoint, and make the trial the job's best if its value is.

    `beaten_checkpoints` then finds the checkpoints to delete, once for all trials that ended together. To ask for each
    trial would read the whole front each time, while no other transaction can write.
    """
    add_file(session, job.id, "checkpoint", saved, trial=trial.number)
    if leads(job, trial.number, value):
        job.best_trial, job.best_value = trial.number, value


def _of(job_id: str, number: int) -> tuple[Any, ...]:
    return (col(Trial.job_id) == job_id, col(Trial.number) == number)


def _values(session: Session, job_id: str, after: int, objective: str) -> dict[int, dict[int, float]]:
    """Return the objective by trial id and step, for the trials of a job that changed after a change number."""
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
