"""The supervisor: claims packs, lends each a trainer, keeps the lease while it trains, and stops it when asked."""

from collections.abc import Collection
from math import inf
from threading import Event, Thread
from time import monotonic
from typing import Any

import structlog

from ml.records import Stop
from worker.artifacts.store import Store, drop_files
from worker.errors import LeaseLost
from worker.ledger.leases import Claim, Leases, PackOrders
from worker.supervision.notify import ring
from worker.supervision.trainer_pool import TrainerDied, TrainerProcess, Trainers

LOOK_SECONDS = 2.0  # how often a supervisor looks whether its pack must end
AWAY_SECONDS = 5.0  # how long a pack rests whose trainer found the database or the storage away
STOP_SECONDS = 8.0  # how long a trainer may take to end a pack before it is killed: whoever is told to end has ten
WRITE_SECONDS = 60.0  # the same where a job's seconds are spent: what was measured must be written to the store

log = structlog.get_logger()


class Supervisor:
    """One worker's part in all jobs."""

    def __init__(self, leases: Leases, trainers: Trainers, store: Store, poll_seconds: float) -> None:
        self.leases = leases
        self.trainers = trainers
        self.store = store
        self.poll_seconds = poll_seconds
        self.draining = Event()
        self._workers: set[Thread] = set()

    def work(self) -> None:
        """Work on packs until there are none or no trainer is idle."""
        first = True
        while not self.draining.is_set() and (trainer := self.trainers.borrow()) is not None:
            try:
                trainer.wait_until_ready()  # so that its start spends nothing of a job's seconds
                claim = None if self.draining.is_set() else self.leases.claim()
                if claim is None:
                    return
                if first:  # where there was one pack there may be another: pass the bell on
                    ring()
                    first = False
                self._supervise(trainer, claim)
            except TrainerDied as error:
                log.error("a trainer does not start", how=str(error))
                return
            finally:
                self.trainers.give_back(trainer)

    def poll(self) -> None:
        """Look for work now and then, rung or not, until the worker drains."""
        while not self.draining.wait(self.poll_seconds):
            self._workers = {thread for thread in self._workers if thread.is_alive()}
            thread = Thread(target=self._work_and_log)
            self._workers.add(thread)
            thread.start()

    def drain(self) -> None:
        """Begin nothing more, and give back what is being worked on."""
        self.draining.set()

    def close(self) -> None:
        """Wait until everything has been given back, then end the trainers."""
        for thread in self._workers:
            thread.join()
        self.trainers.close()

    def _work_and_log(self) -> None:
        try:
            self.work()
        except Exception as error:  # the boundary of a thread: the database may be away, the next look tries again
            log.warning("could not look for work", error=str(error))

    def _supervise(self, trainer: TrainerProcess, claim: Claim) -> None:
        """See one pack through."""
        try:
            trainer.begin(claim)
        except TrainerDied as error:  # while it was idle: no trial is to blame
            log.warning("trainer died", how=str(error))
            self.leases.release(claim)
            return
        try:
            answer = Watch(self.leases, trainer, claim, self.draining).until_answered()
        except TrainerDied as error:
            log.warning("trainer died", pack=claim.pack_id, how=str(error))
            answer = {"failed": str(error)}
        if "done" in answer:
            self._close(claim)
        elif "failed" in answer:
            drop_files(self.store, self.leases.died(claim, answer["failed"]))
        elif "impossible" in answer:
            drop_files(self.store, self.leases.impossible(claim, answer["impossible"]))
        elif "full" in answer:
            self.leases.hold(claim, answer["full"])
        elif "away" in answer:
            self.leases.release(claim, wait=AWAY_SECONDS)
        elif "ended" not in answer:
            self.leases.release(claim)  # drained or paused; where it is lost this does nothing

    def _close(self, claim: Claim) -> None:
        try:
            drop_files(self.store, self.leases.close(claim))
        except LeaseLost:
            log.warning("lease lost", pack=claim.pack_id)


class Watch:
    """A pack in training, and the time since its lease was renewed."""

    def __init__(self, leases: Leases, trainer: TrainerProcess, claim: Claim, draining: Event) -> None:
        self.leases = leases
        self.trainer = trainer
        self.claim = claim
        self.draining = draining
        self.renewed = monotonic()  # when the last renewal that succeeded was sent
        self.reason: Stop | None = None  # why the trainer was told to stop
        self.deadline = inf  # when it must have stopped
        self.cancelled: Collection[int] = ()  # the trials that it was told to leave out

    def until_answered(self) -> dict[str, Any]:
        """Wait for the trainer's answer, and kill it where the lease is lost or it does not stop."""
        while (answer := self.trainer.answer(min(LOOK_SECONDS, self.leases.seconds / 8))) is None:
            self._pass_on()
            if not self._keeps_lease():
                log.warning("lease lost", pack=self.claim.pack_id)
                self.trainer.kill()
                return {"lost": self.claim.pack_id}
            if monotonic() > self.deadline:
                log.warning("trainer does not stop", pack=self.claim.pack_id)
                self.trainer.kill()
                return {"done" if self.reason == Stop.SECONDS else "released": self.claim.pack_id}
        return answer

    def _pass_on(self) -> None:
        """Tell the trainer what it is to do."""
        if self.reason not in (None, Stop.SECONDS):
            return
        orders = PackOrders(Stop.RELEASED) if self.draining.is_set() else self._orders()
        if orders.cancelled != self.cancelled and orders.cancelled:
            self.trainer.cancel(orders.cancelled)
            self.cancelled = orders.cancelled
        if orders.stop not in (None, self.reason):
            self._stop(orders.stop)

    def _stop(self, reason: Stop) -> None:
        """Let the trainer end; one that writes down what was measured goes on with that, in less time."""
        if self.reason is None:
            self.trainer.stop(reason)
        self.reason = reason
        seconds = WRITE_SECONDS if reason == Stop.SECONDS else STOP_SECONDS
        self.deadline = min(self.deadline, monotonic() + seconds)

    def _keeps_lease(self) -> bool:
        """Renew the lease when it is a quarter old; False where it is lost, or so old that it may be lost."""
        age = monotonic() - self.renewed
        if age < self.leases.seconds / 4 or self.reason == Stop.CANCELLED:
            return True
        sent = monotonic()
        try:
            if not self.leases.renew(self.claim):
                return False
            self.renewed = sent
        except Exception as error:  # the database is away: hold on while nobody else can have claimed the pack
            log.warning("could not renew a lease", pack=self.claim.pack_id, error=str(error))
            return age < self.leases.seconds * 2 / 3
        return True

    def _orders(self) -> PackOrders:
        try:
            return self.leases.orders(self.claim)
        except Exception as error:  # the database is away; the lease decides how long that may last
            log.warning("could not look at a job", job=self.claim.job_id, error=str(error))
            return PackOrders(None, self.cancelled)
