"""The supervisor: it claims packs, lends each a trainer, renews the lease during training and stops the trainer."""

from collections.abc import Collection
from math import inf
from threading import Event, Thread
from time import monotonic
from typing import Any

import structlog

from ml.records import Stop
from worker.errors import LeaseLost
from worker.ledger.leases import Claim, Leases, PackOrders
from worker.supervision.notify import wake_worker
from worker.supervision.trainer_pool import TrainerDied, TrainerProcess, Trainers

CHECK_SECONDS = 2.0  # between two checks whether the pack must stop
AWAY_SECONDS = 5.0  # before a pack may be claimed again whose trainer could not reach the database or the storage
STOP_SECONDS = 8.0  # for a trainer to stop before it is killed; a service manager gives the worker ten
WRITE_SECONDS = 60.0  # for a trainer to stop at the time limit of a job, as it must still store its results

log = structlog.get_logger()


class Supervisor:
    """The threads of one worker process, each of which works on one pack at a time."""

    def __init__(self, leases: Leases, trainers: Trainers, poll_seconds: float) -> None:
        self.leases = leases
        self.trainers = trainers
        self.poll_seconds = poll_seconds
        self.draining = Event()
        self._workers: set[Thread] = set()

    def work(self) -> None:
        """Work on packs until none is waiting or no trainer is idle."""
        first = True
        while not self.draining.is_set() and (trainer := self.trainers.borrow()) is not None:
            try:
                trainer.wait_until_ready()  # so that its start does not count against the time limit of a job
                claim = None if self.draining.is_set() else self.leases.claim()
                if claim is None:
                    return
                if first:  # there may be more packs: let one more worker look
                    wake_worker()
                    first = False
                self._supervise(trainer, claim)
            except TrainerDied as error:
                log.error("a trainer does not start", how=str(error))
                return
            finally:
                self.trainers.give_back(trainer)

    def poll(self) -> None:
        """Look for work regularly, even without a message, until the worker drains."""
        while not self.draining.wait(self.poll_seconds):
            self._workers = {thread for thread in self._workers if thread.is_alive()}
            thread = Thread(target=self._work_and_log)
            self._workers.add(thread)
            thread.start()

    def drain(self) -> None:
        """Claim nothing more, and give back the packs in training."""
        self.draining.set()

    def close(self) -> None:
        """Wait until every pack has been given back, then end the trainers."""
        for thread in self._workers:
            thread.join()
        self.trainers.close()

    def _work_and_log(self) -> None:
        try:
            self.work()
        except Exception as error:  # broad on purpose: the end of a thread; the next poll tries again
            log.warning("could not look for work", error=str(error))

    def _supervise(self, trainer: TrainerProcess, claim: Claim) -> None:
        """Let a trainer work on one pack, and record how that ended."""
        try:
            trainer.begin(claim)
        except TrainerDied as error:  # it died while idle, so no trial caused it
            log.warning("a trainer died", how=str(error))
            self.leases.release(claim)
            return
        try:
            answer = Watch(self.leases, trainer, claim, self.draining).until_answered()
        except TrainerDied as error:
            log.warning("a trainer died", pack=claim.pack_id, how=str(error))
            answer = {"failed": str(error)}
        if "done" in answer:
            self._close(claim)
        elif "failed" in answer:
            self.leases.died(claim, answer["failed"])
        elif "impossible" in answer:
            self.leases.impossible(claim, answer["impossible"])
        elif "full" in answer:
            self.leases.hold(claim, answer["full"])
        elif "away" in answer:
            self.leases.release(claim, wait=AWAY_SECONDS)
        elif "ended" not in answer:
            self.leases.release(claim)  # drained or paused; does nothing if the lease is lost

    def _close(self, claim: Claim) -> None:
        try:
            self.leases.close(claim)
        except LeaseLost:
            log.warning("a lease was lost", pack=claim.pack_id)


class Watch:
    """The supervision of one pack in training: its lease, and the orders to its trainer."""

    def __init__(self, leases: Leases, trainer: TrainerProcess, claim: Claim, draining: Event) -> None:
        self.leases = leases
        self.trainer = trainer
        self.claim = claim
        self.draining = draining
        self.renewed = monotonic()  # when the last successful renewal was sent
        self.reason: Stop | None = None  # for which the trainer was asked to stop
        self.deadline = inf  # the time by which it must have stopped
        self.cancelled: Collection[int] = ()  # trials that it was asked to leave out

    def until_answered(self) -> dict[str, Any]:
        """Return the trainer's answer; kill the trainer if the lease is lost or it does not stop in time."""
        while (answer := self.trainer.answer(min(CHECK_SECONDS, self.leases.seconds / 8))) is None:
            self._send_orders()
            if not self._keeps_lease():
                log.warning("a lease was lost", pack=self.claim.pack_id)
                self.trainer.kill()
                return {"lost": self.claim.pack_id}
            if monotonic() > self.deadline:
                log.warning("a trainer does not stop", pack=self.claim.pack_id)
                self.trainer.kill()
                return {"done" if self.reason == Stop.SECONDS else "released": self.claim.pack_id}
        return answer

    def _send_orders(self) -> None:
        """Send the trainer any new order: to stop, or to leave out cancelled trials."""
        if self.reason not in (None, Stop.SECONDS):
            return
        orders = PackOrders(Stop.RELEASED) if self.draining.is_set() else self._orders()
        if orders.cancelled != self.cancelled and orders.cancelled:
            self.trainer.cancel(orders.cancelled)
            self.cancelled = orders.cancelled
        if orders.stop not in (None, self.reason):
            self._stop(orders.stop)

    def _stop(self, reason: Stop) -> None:
        """Ask the trainer to stop. A trainer that already stops at the time limit only gets less time."""
        if self.reason is None:
            self.trainer.stop(reason)
        self.reason = reason
        seconds = WRITE_SECONDS if reason == Stop.SECONDS else STOP_SECONDS
        self.deadline = min(self.deadline, monotonic() + seconds)

    def _keeps_lease(self) -> bool:
        """Renew the lease once a quarter of it has passed; return False if the lease is lost or may be lost by now."""
        age = monotonic() - self.renewed
        if age < self.leases.seconds / 4 or self.reason == Stop.CANCELLED:
            return True
        sent = monotonic()
        try:
            if not self.leases.renew(self.claim):
                return False
            self.renewed = sent
        except Exception as error:  # broad on purpose: keep training until another worker could have claimed the pack
            log.warning("could not renew a lease", pack=self.claim.pack_id, error=str(error))
            return age < self.leases.seconds * 2 / 3
        return True

    def _orders(self) -> PackOrders:
        try:
            return self.leases.orders(self.claim)
        except Exception as error:  # broad on purpose: the lease decides how long the database may be away
            log.warning("could not read the orders of a job", job=self.claim.job_id, error=str(error))
            return PackOrders(None, self.cancelled)
