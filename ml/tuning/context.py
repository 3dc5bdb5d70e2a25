"""The things that all work on a job's packs shares."""

from dataclasses import dataclass

from ml.specs import TuneSpec
from ml.training.lane import TrainingData
from ml.tuning.book import Book
from ml.tuning.search import Search


@dataclass(frozen=True)
class TuningContext:
    """A job's specification, images, book and search."""

    spec: TuneSpec
    data: TrainingData
    book: Book
    search: Search

    def catch_up(self) -> None:
        """Apply to the search what this and other trainers have recorded since the last call."""
        for record in self.book.changes():
            self.search.apply(record)
