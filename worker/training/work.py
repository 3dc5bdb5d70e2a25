"""The work of a search's pack: train its trials."""

from ml.tuning.tune import tune_pack
from worker.ledger.leases import Claim
from worker.training.workbench import Workbench


def train(claim: Claim, bench: Workbench) -> bool:
    """Train the trials of a claimed pack, and further trials of its job that can join them."""
    book = bench.book(claim)
    search = book.warm.search
    tune_pack(search.spec, bench.data(search.spec, search.spec.seed), book, search)
    return False
