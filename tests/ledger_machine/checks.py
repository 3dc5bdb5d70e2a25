"""The reads between steps, and the checks after every step."""

from itertools import pairwise
from typing import Any

from hypothesis.stateful import (
    invariant,
    rule,
)
from ledger_machine.machine import Machine
from ledger_machine.model import (
    CANCELLED,
    COMPLETED,
    FAILED,
    FINAL,
    MOVES,
    PAUSED,
    QUEUED,
    RUNNING,
    STOPPING,
    Held,
    ModelJob,
    ModelTrial,
    Rows,
    beats,
    rank,
    read,
)

from ml.records import Stop, TrialState
from worker.database.tables import JobState, PackPurpose


class Checks(Machine):
    """Steps and checks that compare the rows with the model and with the promises of the design."""

    @rule()
    def look(self) -> None:
        """Check that every read agrees with the model."""
        for held in self.held(PackPurpose.TRAIN):
            self.look_at_pack(held)
        for held in self.claims[-5:]:
            self.look_at_orders(held)
        for job in self.jobs:
            self.look_at_changes(job)
        waiting = self.next_waiting() is not None or any(job.state == QUEUED for job in self.jobs)

        assert self.owners[0].work_waits() == waiting
        self.unchanged()

    def look_at_pack(self, held: Held) -> None:
        """Check that a trainer that opens its pack finds all of its trials and measurements."""
        pack = held.pack
        opened = self.ledger.pack(held.claim)
        trials = [trial for trial in pack.job.trials if trial.pack is pack]

        assert [(t.number, t.state, t.value) for t in opened.record.trials] == [
            (t.number, t.state, t.value) for t in trials
        ]
        assert [{step: m.val_accuracy for step, m in t.rungs.items()} for t in opened.record.trials] == [
            t.rungs for t in trials
        ]
        assert [t.start_step is not None for t in opened.record.trials] == [t.started for t in trials]
        assert (opened.record.lanes, opened.record.parted) == (pack.lanes, pack.parted)
        assert [artifact.path for artifact in opened.checkpoints] == pack.files

    def look_at_orders(self, held: Held) -> None:
        """Check that a worker gets the right orders for a pack that it holds or once held."""
        orders = self.owners[0].orders(held.claim)
        pack, job = held.pack, held.pack.job
        if not held.good:
            assert orders.stop == Stop.CANCELLED
        elif job.state == PAUSED:
            assert orders.stop == Stop.RELEASED
        elif pack.purpose == PackPurpose.TRAIN and job.out_of_time and not pack.makes_good:
            assert orders.stop == Stop.SECONDS
        else:
            cut = {t.number for t in job.trials if t.pack is pack and t.state == TrialState.CANCELLED}

            assert (orders.stop, set(orders.cancelled)) == (None, cut)

    def look_at_changes(self, job: ModelJob) -> None:
        """Check that a search that asks for changes since its last question then knows every trial."""
        changed, job.seen = self.ledger.changes(job.id, job.seen)
        job.records |= {record.number: record for record in changed}
        known = [job.records[number] for number in sorted(job.records)]

        assert [(r.number, r.state, r.value, r.suggestion is not None) for r in known] == [
            (t.number, t.state, t.value, t.suggested) for t in job.trials
        ]
        assert [r.values for r in known] == [
            {step: value for step, value in t.rungs.items() if value is not None} for t in job.trials
        ]

    # --- invariants

    @invariant()
    def all_is_well(self) -> None:
        """Check that every row agrees with the model and the design."""
        self.earlier, self.rows = self.rows, read(self.database)
        self.steps += 1
        for job in self.jobs:
            row = next(row for row in self.rows["job"] if row["id"] == job.id)
            rows = self.rows_of(job)
            self.check_job(job, row)
            self.check_trials(job, rows)
            self.check_packs(job, rows)
            self.check_state(job, row, rows)
            self.check_history(job, row, rows)
            self.check_best(job, row, rows)
            self.check_time(job, row, rows)
            self.check_cancelled(job)
        self.check_claims()
        self.check_files()
        self.check_versions()

    def rows_of(self, job: ModelJob) -> Rows:
        """Return the rows of one job."""
        return {
            name: [row for row in rows if row["job_id"] == job.id]
            for name, rows in self.rows.items()
            if rows and "job_id" in rows[0]
        }

    def check_job(self, job: ModelJob, row: dict[str, Any]) -> None:
        """Check that the job's own row agrees with the model, and that its budget is exact."""
        best = None if job.best is None else job.best.number
        assert (row["state"], row["run"], row["lanes"]) == (job.state, job.run, job.lanes)
        assert (row["reserved"], row["failures"]) == (len(job.trials), job.failures)
        assert (row["trial_limit"], row["seconds_limit"]) == (job.limit, job.seconds)
        assert row["reserved"] <= row["trial_limit"]
        assert row["best_trial"] == best

    def check_trials(self, job: ModelJob, rows: Rows) -> None:
        """Check that numbers have no gap, and that each trial and rung agrees with the model and is recorded once."""
        trials = sorted(rows.get("trial", []), key=lambda row: row["number"])
        rungs: dict[int, dict[int, float | None]] = {row["id"]: {} for row in trials}
        epochs: dict[int, list[int]] = {row["id"]: [] for row in trials}
        for rung in sorted(rows.get("measurement", []), key=lambda row: row["step"]):
            rungs[rung["trial_id"]][rung["step"]] = rung["val_accuracy"]
            epochs[rung["trial_id"]].append(rung["lease_epoch"])

        assert [row["number"] for row in trials] == list(range(len(job.trials)))
        assert [(row["state"], row["pack_id"], row["value"]) for row in trials] == [
            (trial.state, trial.pack.id, trial.value) for trial in job.trials
        ]
        assert [rungs[row["id"]] for row in trials] == [trial.rungs for trial in job.trials]
        assert [(row["finished_at"] is None) for row in trials] == [t.state == TrialState.RUNNING for t in job.trials]
        assert all(found == sorted(found) for found in epochs.values())

    def check_packs(self, job: ModelJob, rows: Rows) -> None:
        """Check that packs agree with the model, and that each running trial is in an open pack."""
        packs = [pack for pack in self.packs.values() if pack.job is job]
        found = {row["id"]: row for row in rows.get("pack", [])}

        assert {pack.id: (pack.purpose, pack.done, pack.epoch, pack.owner, pack.lanes) for pack in packs} == {
            id_: (row["purpose"], row["done"], row["lease_epoch"], row["lease_owner"], row["lanes"])
            for id_, row in found.items()
        }
        assert [(pack.leased, pack.lost_leases, pack.deaths) for pack in packs] == [
            (row["lease_expires_at"] is not None, row["losses"], row["deaths"])
            for row in (found[pack.id] for pack in packs)
        ]
        assert not any(trial.pack.done for trial in job.trials if trial.state == TrialState.RUNNING)

    def check_state(self, job: ModelJob, row: dict[str, Any], rows: Rows) -> None:
        """Check that a job's state fits its open packs, and that no job is stuck."""
        at_work = self.open_packs(job)
        publishing = [pack for pack in at_work if pack.purpose == PackPurpose.PUBLISH]
        if job.state in FINAL:
            assert at_work == []
            assert all(trial["state"] != TrialState.RUNNING for trial in rows.get("trial", []))
        if job.state in (QUEUED, RUNNING):
            assert at_work or not job.spent, "the job has no open pack and can begin no trial"
            assert not publishing
        if job.state == STOPPING:
            assert at_work, "the job is stopping without an open pack"
        if job.state == COMPLETED:
            assert job.best is not None
            assert (job.best.number, job.best.value) in job.versions.values(), "the best trial was not published"
        if job.state == FAILED:
            assert job.best is None or job.unpublishable
        assert len(publishing) <= 1
        self.check_words(job, row)

    def check_words(self, job: ModelJob, row: dict[str, Any]) -> None:
        """Check that the reasons and instants of a job fit its state."""
        assert (row["finished_at"] is not None) == (job.state in FINAL)
        assert (row["started_at"] is not None) == job.begun
        assert (row["error"] is not None) == (job.state == FAILED)
        if job.state != PAUSED:  # a job that was paused while it published has a reason
            assert (row["stop_reason"] is not None) == (job.state in (*FINAL, STOPPING))
        if job.state == COMPLETED and row["stop_reason"] == "trials":
            # If its time was up, its budget may have been raised since.
            assert len(job.trials) >= job.limit or job.out_of_time, "the job completed without all trials of its budget"

    def check_history(self, job: ModelJob, row: dict[str, Any], rows: Rows) -> None:
        """Check that the counter only rises, each write gets a new highest number, and each move is allowed."""
        before = next((old["sequence"] for old in self.earlier["job"] if old["id"] == job.id), 0)
        known = {event["sequence"] for event in self.earlier["event"] if event["job_id"] == job.id}
        events = sorted(rows.get("event", []), key=lambda event: event["sequence"])
        numbers = [event["sequence"] for event in events]
        all_numbers = numbers + [rung["sequence"] for rung in rows.get("measurement", [])]

        assert row["sequence"] >= before
        assert known <= set(numbers)
        assert all(before < number for number in set(numbers) - known)
        assert len(set(all_numbers)) == len(all_numbers)
        assert max(all_numbers + [trial["sequence"] for trial in rows.get("trial", [])]) <= row["sequence"]
        own = [JobState(event["state"]) for event in events if event["trial"] is None]
        assert (own[0], own[-1]) == (QUEUED, job.state)
        # An event with the same state is a note; a job that has ended gets no notes.
        assert all(two in MOVES[one] or (one == two and one not in FINAL) for one, two in pairwise(own)), own
        for trial in job.trials:
            self.check_trial_history(trial, [e["state"] for e in events if e["trial"] == trial.number])

    def check_trial_history(self, trial: ModelTrial, states: list[str]) -> None:
        """Check that a trial runs again only after it has ended."""
        assert (states[0], states[-1]) == (TrialState.RUNNING, trial.state)
        assert all((one == TrialState.RUNNING) != (two == TrialState.RUNNING) for one, two in pairwise(states))

    def check_best(self, job: ModelJob, row: dict[str, Any], rows: Rows) -> None:
        """Check that the best trial is the best with a checkpoint, and that no checkpoint of a beaten trial is kept."""
        files = {a["trial"]: a["path"] for a in rows.get("artifact", []) if a["kind"] == "checkpoint"}
        values = {t["number"]: t["value"] for t in rows.get("trial", []) if t["number"] in files}
        best = max(values, key=lambda number: rank(job, values[number], number), default=None)

        assert (row["best_trial"], row["best_value"]) == (best, values.get(best))
        assert files == {trial.number: trial.file for trial in job.trials if trial.file}
        assert len(files) == sum(artifact["kind"] == "checkpoint" for artifact in rows.get("artifact", []))
        keeping = [trial for trial in job.trials if trial.file]
        spared = {best, *(trial for trial, _ in job.versions.values())}
        for trial in keeping:
            assert trial.number in spared or not any(beats(job, other, trial) for other in keeping)

    def check_time(self, job: ModelJob, row: dict[str, Any], rows: Rows) -> None:
        """Check that a job's seconds grow while a pack of trials is leased, and never shrink."""
        before = next((old["active_seconds"] for old in self.earlier["job"] if old["id"] == job.id), 0.0)
        of_trials = [pack for pack in self.open_packs(job) if pack.purpose != PackPurpose.PUBLISH]
        leased = [pack for pack in of_trials if pack.leased and not pack.expired]

        assert row["active_seconds"] >= before
        assert row["active_seconds"] < job.used + 600
        if leased:
            assert row["active_since"] is not None
        if not any(pack.leased for pack in of_trials):
            assert row["active_since"] is None

    def check_cancelled(self, job: ModelJob) -> None:
        """Check that no row of a cancelled job changes."""
        if job.state == CANCELLED:
            rows = {**self.rows_of(job), "job": [row for row in self.rows["job"] if row["id"] == job.id]}
            rows.pop("idempotencykey", None)
            assert {k: v for k, v in self.ended_as.setdefault(job.id, rows).items() if v} == {
                k: v for k, v in rows.items() if v
            }

    def check_claims(self) -> None:
        """Check that at most one claim of a pack is good."""
        good = [held.pack.id for held in self.claims if held.good]

        assert len(set(good)) == len(good)

    def check_files(self) -> None:
        """Check that every file either is named by a row or was removed, and never both."""
        named = {artifact["path"] for artifact in self.rows["artifact"]}
        packs: dict[int, list[str]] = {}
        for artifact in self.rows["artifact"]:
            if artifact["kind"] == "pack":
                packs.setdefault(artifact["pack_id"], []).insert(0, artifact["path"])

        assert not named & self.unneeded
        assert self.written == named | self.unneeded | (self.left & self.written)
        assert packs == {pack.id: pack.files for pack in self.packs.values() if pack.files}

    def check_versions(self) -> None:
        """Check that a run of a job has at most one version, and that the champion is the best comparable version."""
        versions = sorted(self.rows["modelversion"], key=lambda row: row["version"])
        expected = {(job.id, run): found for job in self.jobs for run, found in job.versions.items()}

        assert {(row["job_id"], row["run"]): (row["trial"], row["value"]) for row in versions} == expected
        assert [row["version"] for row in versions] == list(range(1, len(versions) + 1))
        assert len(self.rows["champion"]) == bool(versions)
        for champion in self.rows["champion"]:
            like = [row for row in versions if row["objective"] == versions[0]["objective"]]
            sign = 1 if versions[0]["objective"] == "val_accuracy" else -1
            best = max(like, key=lambda row: (sign * row["value"], -row["version"]))
            assert champion["version_id"] == best["id"]
