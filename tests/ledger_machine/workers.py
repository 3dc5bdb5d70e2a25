"""The steps of workers, timely and late, and the passing of time."""

from collections.abc import Callable
from math import inf
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule,
)
from ledger_machine.machine import Machine
from ledger_machine.model import (
    ANY,
    END,
    FOREVER,
    MAX_LOSSES,
    OWNER,
    PARAMS,
    PAUSED,
    QUEUED,
    RUNNING,
    SIZES,
    STOPPING,
    VALUE,
    Held,
    ModelJob,
    ModelPack,
    ModelTrial,
    Sizes,
    beats,
    pick,
    rank,
    read,
)
from support.worker_tools import FILE, measurement

from ml.artifacts import Saved
from ml.records import Event, Finished, Measured, Started, Stop, TrialRecord, TrialState
from worker.database.tables import Artifact, Job, Pack, PackPurpose
from worker.errors import LeaseLost
from worker.ledger.leases import Claim, Leases
from worker.publication.rows import Published


class Workers(Machine):
    """Steps of workers that claim, train, die, and let leases run out."""

    def next_waiting(self) -> ModelPack | None:
        """Return the waiting pack that is claimed next; waiting packs come before new ones."""
        free = [p for p in self.packs.values() if not (p.done or p.leased or p.waits) and p.job.state != PAUSED]
        return min(free, key=lambda pack: pack.id, default=None)

    def next_job(self) -> ModelJob | None:
        """Return the job whose next trial begins if no pack waits: the one with the fewest packs, then the first."""
        able = [job for job in self.jobs if job.state in (QUEUED, RUNNING) and not job.spent]
        return min(able, key=lambda job: len(self.open_packs(job)), default=None)

    def taken(self, owner: Leases, claim: Claim, pack: ModelPack) -> Held:
        pack.epoch += 1
        pack.owner, pack.leased = owner.owner, True
        if pack.job.state == QUEUED:
            pack.job.state, pack.job.begun = RUNNING, True
        held = Held(claim, pack)
        self.claims.append(held)

        assert (claim.pack_id, claim.job_id, claim.purpose) == (pack.id, pack.job.id, pack.purpose)
        assert claim.epoch == pack.epoch
        if claim.purpose == PackPurpose.PUBLISH:
            held.winner = self.publishing.winner(claim)
        return held

    def claimed(self, owner: Leases) -> Held | None:
        """Let a worker claim a pack, and compare it with the model."""
        claim = owner.claim()
        self.reaped()
        if (waiting := self.next_waiting()) is not None:
            assert claim is not None
            return self.taken(owner, claim, waiting)
        if (job := self.next_job()) is not None:
            assert claim is not None
            assert claim.job_id == job.id
            pack = self.new_pack(job)
            pack.epoch = 0
            job.trials.append(ModelTrial(len(job.trials), pack))
            return self.taken(owner, claim, pack)
        assert claim is None
        return None

    @rule(owner=OWNER, trials=st.integers(0, 3), sizes=SIZES)
    def claim(self, owner: int, trials: int, sizes: Sizes) -> None:
        """A worker claims a pack and begins up to `trials` trials in it."""
        held = self.claimed(self.owners[owner])
        if held is None or held.claim.purpose == PackPurpose.PUBLISH or not trials:
            return
        while len(held.pack.running) < trials and self.reserved(held):
            pass
        for trial in held.pack.running[:trials]:
            if not trial.started:
                self.record(held, self.started(trial, *sizes), trial)

    @precondition(lambda self: self.held(PackPurpose.TRAIN))
    @rule(which=ANY, fits=st.booleans())
    def reserve(self, which: int, fits: bool) -> None:
        """A trainer asks for one more trial; if the trial does not fit, it is left to another pack."""
        self.reserved(pick(self.held(PackPurpose.TRAIN), which), fits)

    def reserved(self, held: Held, fits: bool = True) -> bool:
        """Reserve a trial; return whether the ledger gave one."""
        job = held.pack.job
        before = read(self.database)
        record = self.ledger.reserve(held.claim, lambda number: fits and number == len(job.trials))
        if job.state != RUNNING or job.spent or not fits:
            assert record == (Stop.RELEASED if job.state == PAUSED else None)
            assert read(self.database) == before
            return False
        assert record == TrialRecord(len(job.trials), TrialState.RUNNING)
        job.trials.append(ModelTrial(record.number, held.pack))
        return True

    @precondition(lambda self: self.held(PackPurpose.TRAIN))
    @rule(which=ANY, lanes=st.integers(1, 3))
    def fix_lanes(self, which: int, lanes: int) -> None:
        """A trainer reports how many lanes train best; the job's first pack decides."""
        held = pick(self.held(PackPurpose.TRAIN), which)
        pack, job = held.pack, held.pack.job
        job.lanes = job.lanes or lanes
        pack.lanes = min(pack.lanes, job.lanes) if pack.parted else job.lanes

        assert self.ledger.fix_lanes(held.claim, "key", lanes) == pack.lanes
        assert self.ledger.lanes(job.id) == job.lanes

    @precondition(lambda self: self.training())
    @rule(which=ANY, trial=ANY, value=st.one_of(st.none(), VALUE))
    def measure(self, which: int, trial: int, value: float | None) -> None:
        """A trial reaches its next rung."""
        held = pick(self.training(), which)
        one = pick(held.pack.running, trial)
        epoch = len(one.rungs) + 1
        self.record(held, Measured(one.number, measurement(epoch, value, value), {"epoch": epoch}), one)
        one.rungs[10 * epoch] = value

    def training(self) -> list[Held]:
        """Return the claims with running trials."""
        return [held for held in self.held(PackPurpose.TRAIN) if held.pack.running]

    def started(self, trial: ModelTrial, flops: int | None = None, weights: int | None = None) -> Started:
        """Return the event that gives a trial its parameters."""
        trial.started = trial.suggested = True
        trial.sizes = (inf if flops is None else flops, inf if weights is None else weights)
        return Started(trial.number, PARAMS, {"learning_rate": 0.01}, {}, 1, 2, 0, flops, weights)

    def record(self, held: Held, event: Event, trial: ModelTrial) -> None:
        assert trial in held.pack.running
        before = set(self.unneeded)
        self.ledger.record(held.claim, [event], {})

        assert self.unneeded == before

    @precondition(lambda self: self.training())
    @rule(which=ANY, trial=ANY, state=END, value=VALUE, saves=st.booleans(), sizes=SIZES)
    def finish(self, which: int, trial: int, state: TrialState, value: float, saves: bool, sizes: Sizes) -> None:
        """A trial ends, with or without a checkpoint."""
        held = pick(self.training(), which)
        one = pick(held.pack.running, trial)
        known, worth = one.started, self.ledger.worth_keeping(held.claim, one.number, value)
        self.finished(held, [one], state, value, saves, sizes)
        if saves and state.judged and known:
            assert worth == (one.file is not None)

    @precondition(lambda self: any(self.strangers(held) for held in self.held(PackPurpose.TRAIN)))
    @rule(which=ANY, trial=ANY)
    def speak_of_others(self, which: int, trial: int) -> None:
        """A trainer records events of a trial that has ended or moved to another pack; they are ignored."""
        held = pick([held for held in self.held(PackPurpose.TRAIN) if self.strangers(held)], which)
        one, path = pick(self.strangers(held), trial), self.file("late")
        late = Finished(one.number, TrialState.COMPLETED, "late", None, 0.99, None)
        events = [Started(one.number, {}, {}, {}, 9, 9, 9), Measured(one.number, measurement(9, 0.99), {}), late]

        before = set(self.unneeded)
        self.ledger.record(held.claim, events, {one.number: (path, FILE)})

        assert self.unneeded - before == {path}
        self.unchanged()

    def strangers(self, held: Held) -> list[ModelTrial]:
        """Return the trials that a claimed pack can no longer record."""
        return [trial for trial in held.pack.job.trials if trial not in held.pack.running]

    def finished(
        self,
        held: Held,
        trials: list[ModelTrial],
        state: TrialState,
        value: float,
        saves: bool,
        sizes: Sizes = (1, 1),
    ) -> None:
        """End running trials of a claimed pack in one write."""
        judged = value if state.judged else None
        saved: dict[int, tuple[str, Saved]] = {}
        events: list[Event] = []
        for trial in trials:
            if not trial.started:
                events.append(self.started(trial, *sizes))
            best = measurement(1, value, value)
            events.append(Finished(trial.number, state, "by the test", best, judged, None))
            if saves and state.judged:
                saved[trial.number] = (self.file(f"trial-{trial.number}"), FILE)
        self.ledger.record(held.claim, events, saved)
        for trial in trials:
            trial.state, trial.value = state, judged
            trial.file = saved[trial.number][0] if trial.number in saved else None
        self.kept_only(held.pack.job)

    def kept_only(self, job: ModelJob) -> None:
        """Keep, in the model, the checkpoints of the best trial, of versions, and of unbeaten trials."""
        with_file = [trial for trial in job.trials if trial.file]
        job.best = max(with_file, key=lambda t: rank(job, t.value or 0.0, t.number), default=None)
        published = {trial for trial, _ in job.versions.values()}
        for trial in with_file:
            beaten = any(beats(job, other, trial) for other in with_file)
            if beaten and trial is not job.best and trial.number not in published:
                trial.file = None

    @precondition(lambda self: self.held(PackPurpose.TRAIN))
    @rule(which=ANY)
    def keep(self, which: int) -> None:
        """A trainer writes a checkpoint of its pack; the previous one stays, older ones are removed."""
        pack = (held := pick(self.held(PackPurpose.TRAIN), which)).pack
        path = self.file(f"pack-{pack.id}")
        gone_before = set(self.unneeded)
        self.ledger.keep(held.claim, 10, (path, FILE))
        before, pack.files, pack.lost_leases, pack.waits = pack.files, [path, *pack.files[:1]], 0, False
        needed = {name for other in self.packs.values() for name in other.files}

        assert self.unneeded - gone_before == set(before) - needed

    @precondition(lambda self: any(held.pack.files for held in self.held(PackPurpose.TRAIN)))
    @rule(which=ANY)
    def discard_checkpoint(self, which: int) -> None:
        """A trainer finds the newest checkpoint of its pack damaged; the janitor removes the file later."""
        held = pick([held for held in self.held(PackPurpose.TRAIN) if held.pack.files], which)
        opened = self.ledger.pack(held.claim)

        assert [artifact.path for artifact in opened.checkpoints] == held.pack.files
        self.ledger.discard(held.claim, opened.checkpoints[0], "damaged")
        self.left.add(held.pack.files.pop(0))

    @precondition(lambda self: self.held(PackPurpose.TRAIN))
    @rule(which=ANY, first=st.sets(st.integers(0, 3), min_size=1), second=st.sets(st.integers(0, 3)))
    def part(self, which: int, first: set[int], second: set[int]) -> None:
        """A trainer moves trials to new packs; those that have ended stay."""
        pack = (held := pick(self.held(PackPurpose.TRAIN), which)).pack
        groups = [sorted(group) for group in (first, second - first) if group]
        running = {trial.number: trial for trial in pack.running}
        self.ledger.divide(held.claim, groups)
        expected = [numbers for group in groups if (numbers := [n for n in group if n in running])]
        others = self.new_packs(pack.job)

        assert [other.lanes for other in others] == [len(numbers) for numbers in expected]
        for other, numbers in zip(others, expected, strict=True):
            other.files = list(pack.files)
            for number in numbers:
                running[number].pack = other

    @precondition(lambda self: self.held())
    @rule(which=ANY)
    def renew(self, which: int) -> None:
        """A worker renews its lease, even if the lease has run out and no worker has noticed."""
        held = pick(self.held(), which)

        assert self.leases(held).renew(held.claim)
        held.pack.expired = False

    @precondition(lambda self: self.held())
    @rule(which=ANY, waits=st.booleans())
    def release(self, which: int, waits: bool) -> None:
        """A worker gives its pack back."""
        held = pick(self.held(), which)
        self.leases(held).release(held.claim, FOREVER if waits else 0.0)
        held.pack.let_go()
        held.pack.waits = waits
        held.given_back = True

    @precondition(lambda self: self.held())
    @rule(which=ANY)
    def hold(self, which: int) -> None:
        """A worker finds the store full, gives its pack back, and the job is paused."""
        self.given_back_for_room(pick(self.held(), which))

    def given_back_for_room(self, held: Held) -> None:
        self.leases(held).hold(held.claim, "full")
        held.pack.let_go()
        held.given_back = True
        if held.pack.job.state in (RUNNING, STOPPING):
            held.pack.job.state = PAUSED

    @precondition(lambda self: self.held())
    @rule(which=ANY)
    def died(self, which: int) -> None:
        """A trainer dies while it trains a pack."""
        held = pick(self.held(), which)
        self.leases(held).died(held.claim, "signal SIGKILL")
        held.pack.let_go()
        held.given_back = True
        self.suspected(held.pack)
        if held.pack.done:
            self.follow(held.pack.job)

    @precondition(lambda self: self.held())
    @rule(which=ANY)
    def expire(self, which: int) -> None:
        """A worker does not renew its lease until it has run out."""
        self.expired(pick(self.held(), which).pack)

    def expired(self, pack: ModelPack) -> None:
        self.set_row(Pack, pack.id, lease_expires_at=1.0)
        pack.expired = True

    @precondition(lambda self: self.held())
    @rule(which=ANY, times=st.integers(1, MAX_LOSSES))
    def lose(self, which: int, times: int) -> None:
        """One worker after another loses the same pack."""
        pack = pick(self.held(), which).pack
        for _ in range(times):
            if not pack.leased:
                self.waited()
                self.claimed(self.owners[2])
            if pack.leased:
                self.expired(pack)
                self.owners[0].reap()
                self.reaped()

    @rule(owner=OWNER)
    def reap(self, owner: int) -> None:
        """A worker takes back lost packs; each is taken back once."""
        count = self.owners[owner].reap()

        assert count == self.reaped()
        self.again_nothing(self.owners[owner].reap)

    @precondition(lambda self: self.held(PackPurpose.TRAIN))
    @rule(which=ANY)
    def close(self, which: int) -> None:
        """A worker ends a pack; its running trials are cancelled."""
        self.closed(pick(self.held(PackPurpose.TRAIN), which))

    def closed(self, held: Held) -> None:
        self.leases(held).close(held.claim)
        self.end_trials(held.pack, TrialState.CANCELLED)
        held.pack.end()
        self.follow(held.pack.job)

    @precondition(lambda self: self.held(PackPurpose.PUBLISH))
    @rule(which=ANY)
    def publish(self, which: int) -> None:
        """A worker publishes a winner as a version."""
        self.published(pick(self.held(PackPurpose.PUBLISH), which))

    def published(self, held: Held) -> None:
        job, winner = held.pack.job, held.winner
        assert winner is not None
        self.publishing.open_test(held.claim)
        self.publishing.publish(held.claim, winner, self.publication())
        job.versions[job.run] = (winner.trial.number, winner.trial.value or 0.0)
        held.pack.end()
        self.follow(job)

    def publication(self) -> Published:
        return Published((self.file("onnx"), FILE), [1, 8, 8], [str(n) for n in range(10)], 650, 0.2, 0.88)

    @precondition(lambda self: self.held(PackPurpose.PUBLISH))
    @rule(which=ANY)
    def discard_winner(self, which: int) -> None:
        """A winner's checkpoint is damaged: the trial runs again, and if that happens twice, the job fails."""
        held = pick(self.held(PackPurpose.PUBLISH), which)
        job, winner = held.pack.job, held.winner
        assert winner is not None
        self.publishing.discard(held.claim, winner, "damaged")
        held.pack.end()
        trial = job.trials[winner.trial.number]
        if trial.discarded:
            job.unpublishable = True
            self.follow(job)
            return
        job.state = RUNNING
        self.left.add(trial.file or "")
        trial.again(self.new_pack(job))
        trial.discarded = trial.makes_good = True
        trial.file = None
        self.kept_only(job)

    @precondition(lambda self: any(not held.good for held in self.claims))
    @rule(which=ANY, number=st.integers(0, 3))
    def write_late(self, which: int, number: int) -> None:
        """A worker that has lost its pack keeps writing; every write is refused and changes nothing."""
        held = pick([held for held in self.claims if not held.good], which)
        for name, write in self.writes(held, number).items():
            try:
                write()
            except LeaseLost:
                continue
            raise AssertionError(f"{name} was not refused")
        leases, claim = self.owners[0], held.claim

        assert leases.renew(claim) is False
        leases.release(claim, 5.0)
        leases.hold(claim, "late")
        leases.died(claim, "late")
        self.unchanged()

    def writes(self, held: Held, number: int) -> dict[str, Callable[[], Any]]:
        """Return every write that needs a claim."""
        ledger, claim, saved = self.ledger, held.claim, ("late", FILE)
        rung = Measured(number, measurement(9, 0.99), {})
        end = Finished(number, TrialState.COMPLETED, "late", measurement(9, 0.99), 0.99, None)
        writes: dict[str, Callable[[], Any]] = {
            "pack": lambda: ledger.pack(claim),
            "reserve": lambda: ledger.reserve(claim, lambda _: True),
            "fix_lanes": lambda: ledger.fix_lanes(claim, "late", 9),
            "part": lambda: ledger.divide(claim, [[number]]),
            "start": lambda: ledger.record(claim, [Started(number, PARAMS, {}, {}, 1, 2, 0)], {}),
            "measure": lambda: ledger.record(claim, [rung], {}),
            "finish": lambda: ledger.record(claim, [end], {number: saved}),
            "nothing": lambda: ledger.record(claim, [], {}),
            "keep": lambda: ledger.keep(claim, 99, saved),
            "discard": lambda: ledger.discard(claim, Artifact(id=-1), "late"),
            "close": lambda: self.owners[0].close(claim),
            "open_test": lambda: self.publishing.open_test(claim),
        }
        if (winner := held.winner) is not None:
            late = Published(("late", FILE), [1, 8, 8], ["0"], 1, 0.1, 0.99)
            writes["publish"] = lambda: self.publishing.publish(claim, winner, late)
            writes["discard winner"] = lambda: self.publishing.discard(claim, winner, "late")
        return writes

    # --- time

    @precondition(lambda self: any(pack.leased and pack.job.seconds for pack in self.packs.values()))
    @rule(which=ANY)
    def use_up_seconds(self, which: int) -> None:
        """A job with a leased pack uses up its seconds."""
        self.used_up(pick([pack.job for pack in self.packs.values() if pack.leased and pack.job.seconds], which))

    def used_up(self, job: ModelJob) -> None:
        if not job.out_of_time:
            job.used = job.seconds or 0.0
            self.set_row(Job, job.id, active_seconds=job.used)

    @precondition(lambda self: any(pack.waits for pack in self.packs.values()))
    @rule()
    def wait(self) -> None:
        """The waiting time of lost packs ends."""
        self.waited()

    def waited(self) -> None:
        for pack in self.packs.values():
            if pack.waits:
                self.set_row(Pack, pack.id, not_before=1.0)
                pack.waits = False
