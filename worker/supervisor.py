"""The supervisor: claims packs, lends each a trainer, keeps the lease while it trains, and stops it when asked."""

from threading import Event, Thread
from time import monotonic
from typing import Any

import structlog

from ml.records import Stop
from worker.errors import LeaseLost
from worker.leases import Claim, Leases
from worker.queue import ring
from worker.trainers import TrainerDied, TrainerProcess, Trainers

LOOK_SECONDS = 2.0  # how often a supervisor looks whether its pack must end
STOP_SECONDS = 8.0  # how long a trainer may take to end a pack before it is killed

log = structlog.get_logger()


class Supervisor:
    """One worker's part in all jobs."""

    def __init__(self, leases: Leases, trainers: Trainers, poll_seconds: float) -> None:
        self.leases = leases
        self.trainers = trainers
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
            answer = Watch(self.leases, trainer, claim, self.draining).until_answered()
        except TrainerDied as error:
            log.warning("trainer died", pack=claim.pack_id, how=str(error))
            self.leases.died(claim, str(error))
            return
        if "done" in answer:
            self._close(claim)
        elif "failed" in answer:
            self.leases.died(claim, answer["failed"])
        elif "published" not in answer:
            # Drained, lost, or without its database: to release what another holds by now does nothing.
            self.leases.release(claim)

    def _close(self, claim: Claim) -> None:
        try:
            self.leases.close(claim)
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
        self.stopped: float | None = None

    def until_answered(self) -> dict[str, Any]:
        """Wait for the trainer's answer, and kill it where the lease is lost or it does not stop."""
        while (answer := self.trainer.answer(min(LOOK_SECONDS, self.leases.seconds / 8))) is None:
            if self.draining.is_set():
                self.trainer.kill()
                return {"released": self.claim.pack_id}
            if not self._keeps_lease():
                log.warning("lease lost", pack=self.claim.pack_id)
                self.trainer.kill()
                return {"lost": self.claim.pack_id}
            if self._overdue():
                log.warning("trainer does not stop", pack=self.claim.pack_id)
                self.trainer.kill()
                return {"done": self.claim.pack_id}
        return answer

    def _keeps_lease(self) -> bool:
        """Renew the lease when it is a quarter old; False where it is lost, or so old that it may be lost."""
        age = monotonic() - self.renewed
        if age < self.leases.seconds / 4:
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

    def _overdue(self) -> bool:
        """Pass on that the pack must end; True where that was said too long ago."""
        if self.stopped is not None:
            return monotonic() - self.stopped > STOP_SECONDS
        reason = self._asked()
        if reason is not None:
            self.trainer.stop(reason)
            self.stopped = monotonic()
        return False

    def _asked(self) -> Stop | None:
        try:
            return self.leases.stop_asked(self.claim)
        except Exception as error:  # the database is away; the lease decides how long that may last
            log.warning("could not look at a job", job=self.claim.job_id, error=str(error))
            return None
