"""The steps of clients."""

from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    initialize,
    precondition,
    rule,
)
from ledger_machine.machine import Machine
from ledger_machine.model import (
    ANY,
    CANCELLED,
    COMPLETED,
    END,
    FAILED,
    FINAL,
    MOST_JOBS,
    PAUSED,
    POSTED,
    QUEUED,
    RUNNING,
    SPACE,
    STOPPING,
    ModelJob,
    ModelTrial,
    Sent,
    pick,
    read,
)
from support.worker_tools import tune_spec

from ml.errors import SpecError
from ml.records import TrialState
from ml.specs import MAX_TRIALS, TrainSpec, TuneSpec
from worker.database.tables import Job, PackPurpose
from worker.errors import Conflict, KeyReused, NotFound
from worker.ledger.idempotency import Once


class People(Machine):
    """Steps that send requests, including repeated and late ones."""

    def job(self, which: int) -> ModelJob:
        """Return the job of a request; only the last of the cancelled jobs is chosen."""
        cancelled = [job for job in self.jobs if job.state == CANCELLED]
        return pick([job for job in self.jobs if job not in cancelled[:-1]], which)

    def trial(self, which: int, trial: int, state: TrialState) -> tuple[ModelJob, int]:
        """Return a job and the number of a trial: preferably one in this state, sometimes one that does not exist."""
        job = self.job(which)
        numbers = [one.number for one in job.trials if one.state == state] or [one.number for one in job.trials]
        return job, pick([*numbers, len(job.trials)], trial)

    @initialize(ends=st.lists(END, max_size=3), then=st.sampled_from(["", "published", "held"]), **POSTED)
    def begin(self, ends: list[TrialState], then: str, **posted: Any) -> None:
        """Start with a job with ended trials; its winner may be published, or held back because the store was full."""
        self.accept(**posted)
        for state in [*ends, None]:
            held = self.claimed(self.owners[0]) if state or then else None
            if held is not None and held.claim.purpose == PackPurpose.TRAIN and state is not None:
                self.seen_through(held, state)
            elif held is not None and held.claim.purpose == PackPurpose.PUBLISH and then:
                (self.published if then == "published" else self.given_back_for_room)(held)

    @precondition(lambda self: sum(job.state not in FINAL for job in self.jobs) < MOST_JOBS)
    @rule(**POSTED)
    def accept(self, trials: int, seconds: float | None, maximize: bool, train: bool, keyed: bool) -> None:
        """A client posts a job."""
        objective = "val_accuracy" if maximize else "val_loss"
        spec: TrainSpec | TuneSpec = tune_spec(
            search_space=SPACE, objective=objective, budget={"trials": trials, "seconds": seconds}
        )
        if train:
            body = {"model": "perceptron", "dataset": "digits", "objective": objective, "budget": {"seconds": seconds}}
            spec = TrainSpec.model_validate(body)
        once = Once(f"key {len(self.sent)}", "accept") if keyed else None
        job = ModelJob(self.ledger.accept(spec, once).id, train, maximize, None if train else trials, seconds)
        # Jobs that are posted within the same millisecond have no order.
        self.set_row(Job, job.id, created_at=float(len(self.jobs)))
        self.jobs.append(job)
        if once is not None:
            self.sent.append(Sent(once, job, spec))

    @precondition(lambda self: self.sent)
    @rule(which=ANY, same=st.booleans())
    def send_again(self, which: int, same: bool) -> None:
        """A client without an answer sends its request again, or another one with its key."""
        sent = pick(self.sent, which)
        once = sent.once if same else Once(sent.once.key, "another")

        def send() -> tuple[str, int | None]:
            if sent.spec is not None:
                return self.ledger.accept(sent.spec, once).id, None
            return sent.job.id, self.controls.enqueue(sent.job.id, {}, once).number

        if not same:
            self.refused(KeyReused, send)
            return
        assert send() == (sent.job.id, sent.trial)
        self.unchanged()

    @precondition(lambda self: self.steps >= 8)  # earlier, few jobs would have results
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        """A client cancels a job; a job that has ended stays as it is."""
        job = self.job(which)
        answer = self.controls.cancel(job.id)
        if job.state in FINAL:
            assert answer.state == job.state
            self.unchanged()
            return
        for pack in self.open_packs(job):
            self.end_trials(pack, TrialState.CANCELLED)
            pack.end()
        job.state = CANCELLED

        assert answer.state == CANCELLED
        self.again_nothing(lambda: self.controls.cancel(job.id))

    @rule(which=ANY)
    def pause(self, which: int) -> None:
        """A client pauses a job."""
        job = self.job(which)
        if job.state not in (QUEUED, RUNNING, PAUSED):
            self.refused(Conflict, lambda: self.controls.pause(job.id))
            return
        answer = self.controls.pause(job.id)
        if job.state == PAUSED:
            self.unchanged()
        job.state = PAUSED

        assert answer.state == PAUSED
        self.again_nothing(lambda: self.controls.pause(job.id))

    @rule(which=ANY)
    def resume(self, which: int) -> None:
        """A client resumes a job."""
        self.resumed(self.job(which))

    def resumed(self, job: ModelJob) -> None:
        if job.state in FINAL:
            with pytest.raises(Conflict):
                self.controls.resume(job.id)
            return
        answer = self.controls.resume(job.id)
        if job.state != PAUSED:
            assert answer.state == job.state
            return
        job.state = STOPPING if self.undecided(job) else RUNNING if job.begun else QUEUED
        self.follow(job)

        assert answer.state == job.state
        if job.state not in FINAL:
            self.again_nothing(lambda: self.controls.resume(job.id))

    @rule(
        which=ANY,
        budget=st.fixed_dictionaries(
            {},
            optional={
                "trials": st.sampled_from([1, 2, 3, 4, 5, None]),
                "seconds": st.sampled_from([None, 1000.0, 2000.0]),
            },
        ),
    )
    def extend(self, which: int, budget: dict[str, Any]) -> None:
        """A client changes a budget; repeating the change has no effect."""
        job = self.job(which)
        for _ in range(2):
            self.rows = read(self.database)
            self.extended(job, budget)

    def extended(self, job: ModelJob, budget: dict[str, Any]) -> None:
        limits = {"trials": job.trials_asked, "seconds": job.seconds}
        wanted = limits | budget
        if job.state in (STOPPING, FAILED, CANCELLED):
            self.refused(Conflict, lambda: self.controls.extend(job.id, budget))
        elif "trials" in budget if job.train else set(wanted.values()) == {None}:
            allowed = (SpecError, Conflict) if self.undecided(job) else SpecError
            self.refused(allowed, lambda: self.controls.extend(job.id, budget))
        elif wanted == limits:
            self.taken_up(job, lambda: self.controls.extend(job.id, budget))
            self.unchanged()
        elif not job.train and (wanted["trials"] or MAX_TRIALS) < len(job.trials):
            self.refused(Conflict, lambda: self.controls.extend(job.id, budget))
        elif self.taken_up(job, lambda: self.controls.extend(job.id, budget)) is not None:
            job.trials_asked, job.seconds = wanted["trials"], wanted["seconds"]
            if job.state == COMPLETED and not job.spent:
                self.reopened(job)
            self.follow(job)

    @rule(which=ANY, keyed=st.booleans())
    def enqueue(self, which: int, keyed: bool) -> None:
        """A client enqueues a trial."""
        job = self.job(which)
        once = Once(f"key {len(self.sent)}", "enqueue") if keyed else None
        if job.state not in (QUEUED, RUNNING, PAUSED) or job.spent or job.train:
            self.refused(Conflict, lambda: self.controls.enqueue(job.id, {}, once))
            return
        trial = self.taken_up(job, lambda: self.controls.enqueue(job.id, {}, once))
        if trial is None:
            return
        job.trials.append(ModelTrial(len(job.trials), self.new_pack(job)))

        assert trial.number == job.trials[-1].number
        if once is not None:
            self.sent.append(Sent(once, job, None, trial.number))

    @rule(which=ANY, trial=ANY)
    def retry(self, which: int, trial: int) -> None:
        """A client retries a failed trial."""
        job, number = self.trial(which, trial, TrialState.FAILED)

        def ask() -> Any:
            return self.controls.retry(job.id, number)

        if number >= len(job.trials):
            self.refused(NotFound, ask)
            return
        one = job.trials[number]
        if one.state == TrialState.RUNNING:
            assert ask().number == number
            self.unchanged()
        elif one.state != TrialState.FAILED or job.state in (STOPPING, CANCELLED) or job.out_of_time:
            self.refused(Conflict, ask)
        elif self.taken_up(job, ask) is not None:
            one.again(self.new_pack(job))
            if job.state in FINAL:
                self.reopened(job)
            self.again_nothing(ask)

    @rule(which=ANY, trial=ANY)
    def cancel_trial(self, which: int, trial: int) -> None:
        """A client cancels a trial; if its pack is unclaimed and has no other trial, the job moves on."""
        job, number = self.trial(which, trial, TrialState.RUNNING)
        if number >= len(job.trials):
            self.refused(NotFound, lambda: self.controls.cancel_trial(job.id, number))
            return
        one = job.trials[number]
        answer = self.controls.cancel_trial(job.id, number)
        if one.state != TrialState.RUNNING:
            assert answer.state == one.state
            self.unchanged()
            return
        one.state = TrialState.CANCELLED
        if not one.pack.leased and not one.pack.running:
            one.pack.end()
            self.follow(job)
        self.again_nothing(lambda: self.controls.cancel_trial(job.id, number))
