"""The sides of the comparison: Chiffre as people use it, and two loops around Optuna."""

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from api.client import Chiffre
from benchmarks.machine import cores
from benchmarks.study.incumbents import Clock, Log
from benchmarks.study.judge import Judge
from benchmarks.study.loops import LOOPS, Running
from benchmarks.study.searches import TargetSearch
from ml.records import step_of
from worker.local import free_port, local_services
from worker.settings import Settings

LIMITS = {"product": 600.0, "b": 1800.0, "best": 1800.0}  # seconds of a search
HOLD = 180.0  # a baseline that was at all targets for so many seconds need not search further


@dataclass(frozen=True)
class Outcome:
    """A search as a side ran it, before it is judged."""

    log: Log
    seconds: float  # that it was watched
    how: str
    threads: int  # that train

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as JSON."""
        found = {"seconds": self.seconds, "trials": len(self.log.trials), "how": self.how, "threads": self.threads}
        return {**found, "incumbents": [asdict(one) for one in self.log.incumbents]}


def search_by(side: str, search: TargetSearch, seed: int, seconds: float, judge: Judge) -> Outcome:
    """Run one side of a search for at most `seconds`."""
    if side == "product":
        return product(search, seed, seconds)
    return loop(side, search, seed, seconds, judge)


def product(search: TargetSearch, seed: int, seconds: float) -> Outcome:
    """Run the search on all of Chiffre: the embedded services with one trainer per core, and the job over HTTP."""
    with TemporaryDirectory(prefix="chiffre-study-") as home:
        settings = Settings(home=Path(home), database_url=None, broker_url=None, artifacts=None)
        with local_services(settings, "127.0.0.1", free_port()) as services, Chiffre(services.url) as client:
            return _watched(client, search, seed, seconds)


def _watched(client: Chiffre, search: TargetSearch, seed: int, seconds: float) -> Outcome:
    """Post the job, and follow its measurements until it ends."""
    clock, log = Clock(), Log()
    job_id = client.tune(search.body(seed, seconds))["id"]
    for event in client.events(job_id):
        if event["event"] == "epoch":
            found = event["data"]
            number, step = found["number"], step_of(found["epoch"])
            log.see(
                clock.now(), number, lambda n=number: client.trial(job_id, n)["params"], step, found["val_accuracy"]
            )
    state = client.job(job_id)["state"]
    if state != "completed":
        raise RuntimeError(f"the job ended as {state}")
    return Outcome(log, clock.now(), "Chiffre's services over HTTP", cores())


def loop(side: str, search: TargetSearch, seed: int, seconds: float, judge: Judge) -> Outcome:
    """Run a baseline.

    It ends early if what it would publish has been at the highest target for `HOLD` seconds. The judge looks at
    incumbents that the side itself takes to be that good. Meanwhile the search and its clock stand still.
    """
    log, held, target = Log(), None, search.targets[-1]
    with Running(search, LOOPS[side], seed) as running:
        clock = running.clock
        for number, params, step, value in running.messages(seconds):
            at = clock.now()
            if log.see(at, number, lambda given=params: given, step, value) and value >= target:
                with running.stopped():
                    good = judge.mean(search, log.incumbents[-1]) >= target
                held = (at if held is None else held) if good else None
            if held is not None and clock.now() - held >= HOLD:
                break
        return Outcome(log, clock.now(), LOOPS[side].name, running.threads)
