"""The run-off: the best trials of a search are trained again with new seeds and splits, and one of them wins.

The best of many trials is partly the luckiest, so its validation accuracy in the search is too high. In the run-off
each trial trains again, up to the epoch that was its best in the search. The new splits had no part in choosing the
trial, and paired tests say which differences are more than chance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf
from statistics import fmean

import numpy as np

from ml.statistics.paired import Resampled, corrected_t, difference_variance, holm, mcnemar, share_variance
from ml.statistics.run_off_result import Contender, Disagreement, Duel, Verdict

LEVEL = 0.05  # rules 1: an adjusted p-value above it is a tie
MOST = 0.003  # rules 2: the accuracy that is given up at most for a smaller network


@dataclass(frozen=True)
class Finalist:
    """A trial that was trained again."""

    trial: int
    searched: float  # validation accuracy in the search
    weights: int | None  # None if unknown, like flops
    flops: int | None  # of one image
    right: Sequence[np.ndarray]  # per split, which validation images it classified right: bool [images]

    @property
    def accuracies(self) -> list[float]:
        """The accuracy on each split."""
        return [float(right.mean()) for right in self.right]

    @property
    def mean(self) -> float:
        """The mean accuracy over all splits."""
        return float(np.mean(self.accuracies))

    @property
    def size(self) -> tuple[float, float, int]:
        """The values that break ties, the lower the better: weights, FLOPs, then the trial number."""
        weights, flops = (inf if size is None else size for size in (self.weights, self.flops))
        return weights, flops, self.trial


def verdict(finalists: Sequence[Finalist], train: int, lost: dict[int, str], rules: int) -> Verdict:
    """Decide which finalist wins.

    The finalist with the highest mean accuracy leads. The smallest of the leader and those tied with it wins. Another
    finalist is tied if its mean is behind by at most one standard error of the paired differences, and by at most
    0.3 points: L. Breiman, J. Friedman, R. Olshen, C. Stone, Classification and Regression Trees (1984), section 3.4.3.
    By rules 1 it was tied unless the corrected resampled t-test, adjusted after Holm for all pairs, rejected equality.
    A test with few splits rejects little, so a much worse network could win.

    Args:
        finalists: trained on the same splits.
        train: training images of a split.
        lost: trials that were not trained to their end on every split, with the reason.
        rules: the rules of the job, 1 or 2.
    """
    ordered = sorted(finalists, key=lambda one: (-one.mean, one.size))
    if not ordered:
        return Verdict(
            rules=rules,
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
    duels = _duels(leader, others, train, rules)
    tied = {leader.trial, *(duel.trial for duel in duels if duel.tied)}
    winner = min((one for one in ordered if one.trial in tied), key=lambda one: one.size)
    return Verdict(
        rules=rules,
        cuts=len(leader.right),
        train_images=train,
        validation_images=validation,
        contenders=[_contender(one, train, validation, one.trial in tied) for one in ordered],
        duels=duels,
        leader=leader.trial,
        winner=winner.trial,
        lost=lost,
    )


def _duels(leader: Finalist, others: Sequence[Finalist], train: int, rules: int) -> list[Duel]:
    pairs = list(combinations([leader, *others], 2))  # pairs with the leader come first
    found = [_compared(*pair, train, len(leader.right[0])) for pair in pairs]
    adjusted = holm([one.p for one in found])
    return [_duel(leader, other, one, p, rules) for other, one, p in zip(others, found, adjusted, strict=False)]


def _tied(found: Resampled, adjusted: float, rules: int) -> bool:
    return adjusted > LEVEL if rules == 1 else found.mean <= min(found.error, MOST)


def _compared(first: Finalist, second: Finalist, train: int, validation: int) -> Resampled:
    """Test the differences over splits; the choice of validation images sets the least variance."""
    differences = [a - b for a, b in zip(first.accuracies, second.accuracies, strict=True)]
    splits = zip(first.right, second.right, strict=True)
    variances = [difference_variance(*_disagreements(*pair), validation) for pair in splits]
    return corrected_t(differences, train, validation, least=fmean(variances))


def _disagreements(first: np.ndarray, second: np.ndarray) -> tuple[int, int]:
    """Return how many images only `first` got right, and how many only `second`."""
    return int((first & ~second).sum()), int((second & ~first).sum())


def _duel(leader: Finalist, other: Finalist, found: Resampled, adjusted: float, rules: int) -> Duel:
    return Duel(
        trial=other.trial,
        difference=found.mean,
        error=found.error,
        low=found.low,
        high=found.high,
        t=found.t,
        p=found.p,
        p_adjusted=adjusted,
        tied=_tied(found, adjusted, rules),
        disagreements=[_disagreement(*pair) for pair in zip(leader.right, other.right, strict=True)],
    )


def _disagreement(first: np.ndarray, second: np.ndarray) -> Disagreement:
    test = mcnemar(*_disagreements(first, second))
    return Disagreement(only_leader=test.only_first, only_other=test.only_second, exact=test.exact, mid=test.mid)


def _contender(one: Finalist, train: int, validation: int, tied: bool) -> Contender:
    least = fmean(share_variance(int(right.sum()), validation) for right in one.right)
    over_splits = corrected_t(one.accuracies, train, validation, least=least)
    return Contender(
        trial=one.trial,
        weights=one.weights,
        flops=one.flops,
        searched=one.searched,
        accuracies=one.accuracies,
        accuracy=over_splits.mean,
        low=max(0.0, over_splits.low),
        high=min(1.0, over_splits.high),
        drop=one.searched - over_splits.mean,
        tied=tied,
    )
