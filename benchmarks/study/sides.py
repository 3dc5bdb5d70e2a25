"""The two sides of the comparison: Chiffre, and Optuna around a plain training loop."""

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

POLL = 0.5  # seconds between two requests for a job; the delay counts against Chiffre
WORK = Path(__file__).parents[2] / ".bench" / "study"  # journals of baselines that have not ended
BEST, SPENT = "best", "spent"  # attributes of a trial: best validation accuracy and seconds of all trials so far
SEEDS_APART = 1000
TRIED = 2.0  # seconds to try each number of threads


def images_of(search: TargetSearch, seed: int) -> TrainingData:
    """Return the training and validation images of a search."""
    data = TrainingData.load(datasets["mnist"], "random", seed)
    share = 1.0 if search.images is None else search.images / len(data.train)
    return TrainingData(_first(data.train, share), _first(data.validation, share))


def _first(data: Images, share: float) -> Images:
    count = round(share * len(data))
    return Images(data.images[:count], data.labels[:count])


class Client(Chiffre):
    """A client that also reads the measurements of trials."""

    def accuracies(self, job_id: str, number: int) -> list[float]:
        """Return the validation accuracies of a trial so far."""
        found = self._call("GET", f"/jobs/{job_id}/trials/{number}")["measurements"]
        return [each["val_accuracy"] for each in found if each["val_accuracy"] is not None]


def product_service(search: TargetSearch, seed: int) -> Outcome:
    """Run the search on all of Chiffre: the embedded services with one trainer per core, and the job over HTTP."""
    with TemporaryDirectory(prefix="chiffre-study-") as home:
        settings = Settings(home=Path(home), database_url=None, broker_url=None, artifacts=None)
        with local_services(settings, "127.0.0.1", free_port()) as services, Client(services.url) as client:
            return _watched(client, search, seed)


def _watched(client: Client, search: TargetSearch, seed: int) -> Outcome:
    """Post the job, and poll it until a trial reaches the target or the job ends."""
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
    """A book that stops the search when a trial reaches the target."""

    target: float = 1.0
    best: float = 0.0
    reached_at: float | None = None

    def should_stop(self) -> Stop | None:
        return Stop.CANCELLED if self.reached_at is not None else super().should_stop()

    def see(self, event: Event) -> None:
        """Note the accuracy of a measurement."""
        if isinstance(event, Measured):
            self.best = max(self.best, event.measurement.val_accuracy or 0.0)
            if self.best >= self.target and self.reached_at is None:
                self.reached_at = perf_counter()


def product_process(search: TargetSearch, seed: int) -> Outcome:
    """Run the search with Chiffre's tuning but without its service: `ml.tuning.tune` here, on one thread."""
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
    """Compile the kernels if they are not cached; an installation does this once."""
    for batch_size in (3, 100):  # the gradient has one kernel for few images and another for many
        params = spec.params({"batch_size": batch_size})
        lanes = Lanes([LaneState.initial(spec.layers(params), Adam(), seed) for seed in (0, 1)], spec.image)
        lanes.step(data.train, np.arange(batch_size))


def baseline(search: TargetSearch, seed: int) -> Outcome:
    """Run Optuna's TPE and median pruner around the report's loop, one trial at a time, with the fastest thread count.

    200 trials take hours, so an interrupted search resumes after its last complete trial. The time of an interrupted
    trial is not counted.
    """
    data = images_of(search, seed)
    run = _Baseline(search, (scaled(data.train.images), data.train.labels), scaled(data.validation.images))
    threads = run.choose_threads() if search.images is None else 1
    torch.set_num_threads(threads)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = _resumed_study(search, seed)
    ended = [trial for trial in study.get_trials() if SPENT in trial.user_attrs]
    run.best = max((trial.user_attrs[BEST] for trial in ended), default=0.0)
    run.started = perf_counter() - max((trial.user_attrs[SPENT] for trial in ended), default=0.0)
    study.optimize(lambda trial: run.objective(trial, data.validation.labels), n_trials=TRIALS - len(ended))
    seconds = perf_counter() - run.started
    reached, trials = run.best >= search.target, len(study.trials)
    _journal(search, seed).unlink(missing_ok=True)
    return Outcome(seconds, reached, trials, run.best, "Optuna and a plain loop", threads)


def _journal(search: TargetSearch, seed: int) -> Path:
    """Return the path of the journal that holds the trials of a full search until it ends."""
    return WORK / f"{search.model}-{seed}.log"


def _resumed_study(search: TargetSearch, seed: int) -> optuna.Study:
    """Return the study of the baseline; that of an interrupted full search has its trials so far."""
    pruner = optuna.pruners.MedianPruner()
    if search.images is not None:
        return optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed), pruner=pruner)
    _journal(search, seed).parent.mkdir(parents=True, exist_ok=True)
    journal = JournalStorage(JournalFileBackend(str(_journal(search, seed))))
    study = optuna.create_study(
        study_name=search.work, storage=journal, direction="maximize", pruner=pruner, load_if_exists=True
    )
    for interrupted in study.get_trials(states=[TrialState.RUNNING]):
        study.tell(interrupted.number, state=TrialState.FAIL)
    # With another seed, the new sampler does not repeat the draws of the first.
    study.sampler = optuna.samplers.TPESampler(seed=seed + SEEDS_APART * len(study.trials))
    return study


@dataclass
class _Baseline:
    """The objective of the baseline, and its best result so far."""

    search: TargetSearch
    train: tuple[torch.Tensor, torch.Tensor]
    validation: torch.Tensor
    best: float = 0.0
    started: float = 0.0

    def objective(self, trial: optuna.Trial, labels: torch.Tensor) -> float:
        """Train one trial, note the progress of the search, and return the last validation accuracy."""
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
        """Return the number of threads that trains the middle of the search space fastest."""
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
        """Draw parameters from the search space of the report, with Optuna's own methods."""
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
