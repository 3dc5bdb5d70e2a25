"""The run-off: the best trials of a search, each trained again on fresh seeds and cuts, and which of them wins.

The winner of a search is the luckiest of many: what it reached on validation images is too high. Trained again, up to
the epoch that was its best in the search, it shows what it is worth on cuts that chose nothing of it, and paired tests
say which differences are more than luck.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf
from statistics import fmean

import numpy as np

from ml.statistics.paired import Resampled, corrected_t, difference_variance, holm, mcnemar, share_variance
from ml.statistics.run_off_result import Contender, Disagreement, Duel, Verdict

LEVEL = 0.05  # an adjusted p above it is a tie


@dataclass(frozen=True)
class Finalist:
    """A trial that was trained again."""

    trial: int
    searched: float  # the validation accuracy that it reached in the search
    weights: int | None  # None where they are not known, as the next
    flops: int | None  # of one image
    right: Sequence[np.ndarray]  # of each cut, which validation images it told right: bool [images]

    @property
    def accuracies(self) -> list[float]:
        """Its accuracy on each cut."""
        return [float(right.mean()) for right in self.right]

    @property
    def mean(self) -> float:
        """Its accuracy, over cuts."""
        return float(np.mean(self.accuracies))

    @property
    def size(self) -> tuple[float, float, int]:
        """What ties are broken by, the smaller the better: weights, FLOPs, then the order of trials."""
        weights, flops = (inf if size is None else size for size in (self.weights, self.flops))
        return weights, flops, self.trial


def verdict(finalists: Sequence[Finalist], train: int, lost: dict[int, str]) -> Verdict:
    """Who wins among finalists that were trained on the same cuts, each into `train` images and those of `right`.

    The most accurate leads. Another is tied with it unless the corrected resampled t-test of their differences rejects
    that they are equal, adjusted after Holm for the tests of all pairs: who leads is known from the same images. Of
    those that are tied the smallest wins.
    """
    ordered = sorted(finalists, key=lambda one: (-one.mean, one.size))
    if not ordered:
        return Verdict(
            cuts=0,
            train_images=train,
            validation_images=0,
            contenders=[],
            duels=[],
            leader=None,
            winner=None,
            lost=lost,
        )
    leader, *others = ordered
    validation = len(leader.right[0])
    duels = _duels(leader, others, train, validation)
    tied = {leader.trial, *(duel.trial for duel in duels if duel.tied)}
    winner = min((one for one in ordered if one.trial in tied), key=lambda one: one.size)
    return Verdict(
        cuts=len(leader.right),
        train_images=train,
        validation_images=validation,
        contenders=[_contender(one, train, validation, one.trial in tied) for one in ordered],
        duels=duels,
        leader=leader.trial,
        winner=winner.trial,
        lost=lost,
    )


def _duels(leader: Finalist, others: Sequence[Finalist], train: int, validation: int) -> list[Duel]:
    pairs = list(combinations([leader, *others], 2))  # those of the leader first
    found = [_compared(*pair, train, validation) for pair in pairs]
    adjusted = holm([one.p for one in found])
    return [_duel(leader, other, one, p) for other, one, p in zip(others, found, adjusted, strict=False)]


def _compared(first: Finalist, second: Finalist, train: int, validation: int) -> Resampled:
    """Their differences over cuts, which vary at least as much as the choice of validation images makes them."""
    differences = [a - b for a, b in zip(first.accuracies, second.accuracies, strict=True)]
    cuts = zip(first.right, second.right, strict=True)
    variances = [difference_variance(*_apart(*pair), validation) for pair in cuts]
    return corrected_t(differences, train, validation, least=fmean(variances))


def _apart(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """How many images only the one got right, and only the other."""
    return int((first & ~second).sum()), int((second & ~first).sum())


def _duel(leader: Finalist, other: Finalist, found: Resampled, adjusted: float) -> Duel:
    return Duel(
        trial=other.trial,
        difference=found.mean,
        low=found.low,
        high=found.high,
        t=found.t,
        p=found.p,
        p_adjusted=adjusted,
        tied=adjusted > LEVEL,
        disagreements=[_disagreement(*pair) for pair in zip(leader.right, other.right, strict=True)],
    )


def _disagreement(first: np.ndarray, second: np.ndarray) -> Disagreement:
    test = mcnemar(*_apart(first, second))
    return Disagreement(only_leader=test.only_first, only_other=test.only_second, exact=test.exact, mid=test.mid)


def _contender(one: Finalist, train: int, validation: int, tied: bool) -> Contender:
    least = fmean(share_variance(int(right.sum()), validation) for right in one.right)
    over_cuts = corrected_t(one.accuracies, train, validation, least=least)
    return Contender(
        trial=one.trial,
        weights=one.weights,
        flops=one.flops,
        searched=one.searched,
        accuracies=one.accuracies,
        accuracy=over_cuts.mean,
        low=max(0.0, over_cuts.low),
        high=min(1.0, over_cuts.high),
        drop=one.searched - over_cuts.mean,
        tied=tied,
    )
