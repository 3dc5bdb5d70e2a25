"""The two sides of a search: the product, and Optuna around a plain training loop."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, sleep
from typing import Any

import numpy as np
import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from api.client import FINAL, Chiffre
from benchmarks.lanes.baselines import ReportBaseline, accuracy
from benchmarks.lanes.programs import seconds_a_step
from benchmarks.machine import cores
from benchmarks.study.searches import EPOCHS, TRIALS, Outcome, TargetSearch
from ml.datasets import datasets
from ml.lanes.lanes import Lanes, LaneState
from ml.network.evaluate import Images, scaled
from ml.optimizers import Adam
from ml.records import Event, Measured, Stop
from ml.specs import TuneSpec
from ml.training.lane import TrainingData
from ml.training.process import process_settings
from ml.tuning.book import MemoryBook
from ml.tuning.search import Search
from ml.tuning.tune import tune
from worker.local import free_port, local_services
from worker.settings import Settings

POLL = 0.5  # seconds between looks at a job; what it adds counts against the product
WORK = Path(__file__).parents[2] / ".bench" / "study"  # baselines that have not ended
BEST, SPENT = "best", "spent"  # of all trials so far: validation accuracy, seconds
SEEDS_APART = 1000
TRIED = 2.0  # seconds for which each number of threads is tried


def images_of(search: TargetSearch, seed: int) -> TrainingData:
    """What a search trains and validates on."""
    data = TrainingData.load(datasets["mnist"], "random", seed)
    share = 1.0 if search.images is None else search.images / len(data.train)
    return TrainingData(_first(data.train, share), _first(data.validation, share))


def _first(data: Images, share: float) -> Images:
    count = round(share * len(data))
    return Images(data.images[:count], data.labels[:count])


class Client(Chiffre):
    """A client that looks into trials."""

    def accuracies(self, job_id: str, number: int) -> list[float]:
        """What a trial's measurements say."""
        found = self._call("GET", f"/jobs/{job_id}/trials/{number}")["measurements"]
        return [each["val_accuracy"] for each in found if each["val_accuracy"] is not None]


def product_service(search: TargetSearch, seed: int) -> Outcome:
    """The whole product: the embedded services with a trainer a core, and the job over HTTP."""
    with TemporaryDirectory(prefix="chiffre-study-") as home:
        settings = Settings(home=Path(home), database_url=None, broker_url=None, artifacts=None)
        with local_services(settings, "127.0.0.1", free_port()) as services, Client(services.url) as client:
            return _watched(client, search, seed)


def _watched(client: Client, search: TargetSearch, seed: int) -> Outcome:
    """Post the job and look at it until it has a trial at the target, or none is left."""
    started = perf_counter()
    job_id = client.tune(search.body(seed))["id"]
    best, known = 0.0, dict[int, float]()
    while True:
        for trial in client.trials(job_id, state="running", limit=1000):
            if trial["epochs_run"] != known.get(trial["number"], 0.0):
                known[trial["number"]] = trial["epochs_run"]
                best = max(best, *client.accuracies(job_id, trial["number"]), 0.0)
        job = client.job(job_id)
        best = max(best, job["best"]["value"] if job["best"] else 0.0)
        if best >= search.target or job["state"] in FINAL:
            seconds, trials = perf_counter() - started, sum(job["trials"].values())
            return Outcome(seconds, best >= search.target, trials, best, "service over HTTP", cores())
        sleep(POLL)


@dataclass
class TargetBook(MemoryBook):
    """A book that says stop once a trial has reached the target."""

    target: float = 1.0
    best: float = 0.0
    reached_at: float | None = None

    def should_stop(self) -> Stop | None:
        return Stop.CANCELLED if self.reached_at is not None else super().should_stop()

    def see(self, event: Event) -> None:
        """Look at what a trial reached."""
        if isinstance(event, Measured):
            self.best = max(self.best, event.measurement.val_accuracy or 0.0)
            if self.best >= self.target and self.reached_at is None:
                self.reached_at = perf_counter()


def product_process(search: TargetSearch, seed: int) -> Outcome:
    """The product's tuning without its service: ml.tuning.tune in this process, on one thread."""
    process_settings()
    spec, data = search.spec(seed), images_of(search, seed)
    _load_kernels(spec, data)
    book = TargetBook(spec, target=search.target)
    book.on_event = book.see
    started = perf_counter()
    tune(spec, data, book, Search(spec))
    ended = book.reached_at or perf_counter()
    reached = book.reached_at is not None
    return Outcome(ended - started, reached, len(book.trials), book.best, "ml.tuning.tune in one process", 1)


def _load_kernels(spec: TuneSpec, data: TrainingData) -> None:
    """Compile the kernels where no earlier process has; an installation does that once."""
    for batch_size in (3, 100):  # a gradient is made in one way for few images, and in another for many
        params = spec.params({"batch_size": batch_size})
        lanes = Lanes([LaneState.initial(spec.layers(params), Adam(), seed) for seed in (0, 1)], spec.image)
        lanes.step(data.train, np.arange(batch_size))


def baseline(search: TargetSearch, seed: int) -> Outcome:
    """Optuna's TPE and median pruner around the report's loop, one trial at a time, on what threads are fastest.

    One that is stopped, as 200 trials take hours, goes on after its last whole trial; the time of a trial that was cut
    off is not counted.
    """
    data = images_of(search, seed)
    run = _Baseline(search, (scaled(data.train.images), data.train.labels), scaled(data.validation.images))
    threads = run.choose_threads() if search.images is None else 1
    torch.set_num_threads(threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _begun(search, seed)
    ended = [trial for trial in study.get_trials() if SPENT in trial.user_attrs]
    run.best = max((trial.user_attrs[BEST] for trial in ended), default=0.0)
    run.started = perf_counter() - max((trial.user_attrs[SPENT] for trial in ended), default=0.0)
    study.optimize(lambda trial: run.objective(trial, data.validation.labels), n_trials=TRIALS - len(ended))
    seconds = perf_counter() - run.started
    reached, trials = run.best >= search.target, len(study.trials)
    _journal(search, seed).unlink(missing_ok=True)
    return Outcome(seconds, reached, trials, run.best, "Optuna and a plain loop", threads)


def _journal(search: TargetSearch, seed: int) -> Path:
    """Where a full search's trials are written down until it ends."""
    return WORK / f"{search.model}-{seed}.log"


def _begun(search: TargetSearch, seed: int) -> optuna.Study:
    """The baseline's study, of a full search as far as it came."""
    pruner = optuna.pruners.MedianPruner()
    if search.images is not None:
        return optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner)
    _journal(search, seed).parent.mkdir(parents=True, exist_ok=True)
    journal = JournalStorage(JournalFileBackend(str(_journal(search, seed))))
    study = optuna.create_study(
        study_name=search.work, storage=journal, direction="maximize", pruner=pruner, load_if_exists=True
    )
    for cut_off in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(cut_off.number, state=TrialState.FAIL)
    # A sampler that begins again draws other numbers than those that it has drawn.
    study.sampler = optuna.samplers.TPESampler(seed=seed + SEEDS_APART * len(study.trials))
    return study


@dataclass
class _Baseline:
    """The objective of the baseline, and the best that it has seen."""

    search: TargetSearch
    train: tuple[torch.Tensor, torch.Tensor]
    validation: torch.Tensor
    best: float = 0.0
    started: float = 0.0

    def objective(self, trial: optuna.Trial, labels: torch.Tensor) -> float:
        """Train one trial and write down how far the search has come; its last validation accuracy."""
        try:
            value = self._trained(trial, labels)
        except optuna.TrialPruned:
            self._note(trial)
            raise
        self._note(trial)
        return value

    def _note(self, trial: optuna.Trial) -> None:
        trial.set_user_attr(BEST, self.best)
        trial.set_user_attr(SPENT, perf_counter() - self.started)

    def _trained(self, trial: optuna.Trial, labels: torch.Tensor) -> float:
        spec = self.search.spec(0)
        params = spec.params(self._drawn(trial))
        loop = ReportBaseline(
            spec.layers(params), params.of_optimizer(), *self.train, params.batch_size, seed=trial.number
        )
        value = 0.0
        for epoch in range(EPOCHS):
            loop.epoch()
            value = accuracy(loop.model, self.validation, labels)
            self.best = max(self.best, value)
            trial.report(value, epoch)
            if self.best >= self.search.target or self._late():
                trial.study.stop()
                break
            if trial.should_prune():
                raise optuna.TrialPruned
        return value

    def choose_threads(self) -> int:
        """The number of threads that trains the middle of the search space fastest."""
        spec = self.search.spec(0)
        params = spec.params({"batch_size": 50})
        found = {}
        for threads in {1, cores()}:
            torch.set_num_threads(threads)
            loop = ReportBaseline(spec.layers(params), Adam(), *self.train, params.batch_size)
            seconds_a_step(loop.step, TRIED / 4)
            found[threads] = seconds_a_step(loop.step, TRIED)
        return min(found, key=lambda threads: found[threads])

    def _drawn(self, trial: optuna.Trial) -> dict[str, Any]:
        """The report's search space, in Optuna's own words."""
        drawn = {
            "batch_size": trial.suggest_int("batch_size", 3, 100),
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-1, log=True),
            "optimizer": trial.suggest_categorical("optimizer", ["adam", "sgd"]),
        }
        if "hidden_size" in self.search.space:
            drawn["hidden_size"] = trial.suggest_int("hidden_size", 500, 2000)
        return drawn

    def _late(self) -> bool:
        limit = self.search.seconds
        return limit is not None and perf_counter() - self.started > limit
