"""Trainers that tests share: a new trainer needs seconds to load torch, and most tests do not need a new one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from worker.supervision.trainer_pool import Trainers

Environment = tuple[tuple[str, str], ...]


class WarmTrainers:
    """The trainers of a module, by their number and by the settings they were started with."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, Environment], Trainers] = {}

    @contextmanager
    def borrowed(self, number: int) -> Iterator[Trainers]:
        """Lend trainers to a test; end them afterwards if one is dead or still working."""
        key = (number, tuple(sorted(item for item in os.environ.items() if item[0].startswith("CHIFFRE_"))))
        trainers = self._kept.pop(key, None) or Trainers(number)
        yield trainers
        vars(trainers).pop("borrow", None)  # some tests replace `borrow` to see which trainers are borrowed
        if _all_idle(trainers):
            self._kept[key] = trainers
        else:
            trainers.close()

    def close(self) -> None:
        """End all of them."""
        for trainers in self._kept.values():
            trainers.close()


def _all_idle(trainers: Trainers) -> bool:
    return trainers._idle.qsize() == len(trainers._all) and all(trainer.alive for trainer in trainers._all)
