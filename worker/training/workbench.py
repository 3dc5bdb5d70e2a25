"""The workbench of a training process: the services that every pack needs, and searches kept from pack to pack."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ml.datasets import FindDataset
from ml.specs import TuneSpec
from ml.training.lane import TrainingData
from ml.tuning.search import Search
from worker.artifacts.store import Store
from worker.database.engine import Database
from worker.database.tables import Job
from worker.ledger.job_spec import tune_spec
from worker.ledger.leases import Claim
from worker.ledger.ledger import Ledger
from worker.ledger.transfer import initial_weights
from worker.training.ledger_book import JobSearch, LedgerBook, Orders
from worker.training.training_data import training_data

OTHER_SEARCHES = 7  # of other jobs, the newest, that stay in memory: 5,000 trials are rebuilt in under a second


@dataclass
class Workbench:
    """The database, the store and the orders of a training process, and the searches of the jobs it works on."""

    database: Database
    store: Store
    find: FindDataset
    orders: Orders
    device: str
    checkpoint_seconds: float
    _searches: dict[str, JobSearch] = field(default_factory=dict)  # by job

    def book(self, claim: Claim) -> LedgerBook:
        """Return a claimed pack as the book that training reads from and records in."""
        search = self.search(claim.job_id)
        return LedgerBook(Ledger(self.database), claim, search, self.orders, self.store, self.checkpoint_seconds)

    def search(self, job_id: str) -> JobSearch:
        """Return a job's search, rebuilt from its rows unless a recent pack has used it."""
        if job_id not in self._searches:
            with self.database.reading() as session:
                spec = tune_spec(session, session.get_one(Job, job_id))
            self._searches = dict(list(self._searches.items())[-OTHER_SEARCHES:])
            self._searches[job_id] = JobSearch(Search(spec))
        return self._searches[job_id]

    def data(self, spec: TuneSpec, split_seed: int) -> TrainingData:
        """Return the images that a job's trials train and validate on, and the weights that they begin with.

        Args:
            spec: the specification, which names data set, split, number of images, and the version to begin with.
            split_seed: the seed of the data split. A search uses the job's seed, each training of a run-off its own.
        """
        data = training_data(self.find(spec.dataset.name), spec.split, split_seed, self.device).first(spec.images)
        if spec.init_from is None:
            return data
        return data.beginning_with(initial_weights(self.database, self.store, spec.init_from))


# Works on a claimed pack. Returns True if it has ended the pack in the ledger, False if the worker is to close it.
Handler = Callable[[Claim, Workbench], bool]
