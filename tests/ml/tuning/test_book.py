"""The winner of a job in the book in memory."""

from itertools import permutations

import pytest

from ml.records import Checkpoint, Finished, TrialState
from ml.specs import TuneSpec
from ml.tuning.book import MemoryBook


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_the_first_of_equal_trials_wins(order: tuple[int, ...], objective: str) -> None:
    """The order in which equal trials end does not matter, as in the service."""
    spec = {"model": "perceptron", "dataset": "digits", "budget": {"trials": 3}, "objective": objective}
    book = MemoryBook(TuneSpec.model_validate(spec))
    pack = book.open()
    assert pack is not None
    for _ in range(2):
        book.reserve(lambda number: True)
    values = {0: 0.25, 1: 0.5, 2: 0.5} if objective == "val_accuracy" else {0: 0.5, 1: 0.25, 2: 0.25}
    for number in order:
        ended = Finished(number, TrialState.COMPLETED, "all epochs", None, values[number], Checkpoint({}, {}))
        book.record([ended])

    assert book.winner is not None
    assert book.winner.number == 1
