"""The verdict of a run-off, on made-up answers."""

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from ml.specs import RULES
from ml.statistics.run_off import MOST, Finalist, verdict

TRAIN, VALIDATION, CUTS = 800, 200, 5


def finalist(trial: int, accuracy: float, weights: int, seed: int = 0, cuts: int = CUTS) -> Finalist:
    """Return a finalist that is right on about this share of images, different ones on every split."""
    rng = np.random.default_rng([seed, trial])
    right = [rng.random(VALIDATION) < accuracy for _ in range(cuts)]
    return Finalist(trial, accuracy + 0.02, weights, 2 * weights, right)


def test_a_difference_on_every_split_decides() -> None:
    """The larger network is far ahead on every split, so it wins without a tie."""
    found = verdict([finalist(3, 0.5, 10), finalist(7, 0.99, 1000)], TRAIN, {}, RULES)

    assert (found.leader, found.winner) == (7, 7)
    assert [one.trial for one in found.contenders] == [7, 3]
    assert [one.tied for one in found.contenders] == [True, False]
    assert not found.duels[0].tied


def ahead_by(images: int, total: int) -> list[Finalist]:
    """Return a large and a small network on two splits; only the large one is right on `images` of `total` images."""
    right = np.arange(total) < 0.9 * total
    small = [right & (np.arange(total) >= images)] * 2
    return [Finalist(1, 0.97, 1000, 9, [right, right]), Finalist(2, 0.97, 10, 9, small)]


def test_the_smallest_of_tied_networks_wins() -> None:
    """Behind by less than a standard error and 0.3 points, the network with fewer weights wins, then fewer FLOPs."""
    found = verdict(ahead_by(2, 1000), TRAIN, {}, RULES)
    same = finalist(2, 0.9, 10).right
    even = verdict([Finalist(1, 0.9, 5, 9, same), Finalist(2, 0.9, 5, 8, same)], TRAIN, {}, RULES)

    assert (found.leader, found.winner) == (1, 2)
    assert all(one.tied for one in found.contenders)
    assert found.contenders[0].low < 0.9 < found.contenders[0].high
    assert even.winner == 2
    assert even.duels[0].p == 1.0


def test_more_than_a_standard_error_behind_a_network_is_not_tied() -> None:
    """Three of 10,000 images on every split are few, but more than chance explains."""
    found = verdict(ahead_by(20, 10_000), 80_000, {}, RULES)

    assert found.duels[0].difference < MOST
    assert found.duels[0].difference > (found.duels[0].error or 0)
    assert found.winner == 1


def test_two_points_are_not_given_up_because_a_test_finds_no_difference() -> None:
    """With two splits of 200 images, 90 % against 88 % is not significant; by rules 1 the small network won."""
    finalists = ahead_by(4, 200)
    earlier, found = (verdict(finalists, TRAIN, {}, rules) for rules in (1, RULES))

    assert found.duels[0].p_adjusted > 0.05
    assert (earlier.winner, found.winner) == (2, 1)


@pytest.mark.parametrize("seed", range(20))
def test_the_winner_is_at_most_three_tenths_of_a_point_behind(seed: int) -> None:
    """This holds for any finalists, however large the standard error is."""
    rng = np.random.default_rng(seed)
    finalists = [finalist(n, rng.uniform(0.85, 0.9), int(rng.integers(1, 100)), seed) for n in range(6)]
    found = verdict(finalists, TRAIN, {}, RULES)
    means = {one.trial: one.accuracy for one in found.contenders}

    assert means[found.winner or 0] >= max(means.values()) - MOST


@pytest.mark.parametrize("seed", range(5))
def test_the_figures_equal_scipys(seed: int) -> None:
    """Means, intervals, differences and p-values are computed independently of the verdict."""
    finalists = [finalist(n, accuracy, 10 * n, seed) for n, accuracy in ((1, 0.9), (2, 0.88), (3, 0.8))]
    found = verdict(finalists, TRAIN, {}, RULES)
    by_trial = {one.trial: np.array([right.mean() for right in one.right]) for one in finalists}

    for one in found.contenders:
        values = by_trial[one.trial]
        share = (values * VALIDATION + 2) / (VALIDATION + 4)
        spread = deviation(values, (share * (1 - share) / (VALIDATION + 4)).mean())
        low, high = stats.t.interval(0.95, CUTS - 1, values.mean(), spread)
        assert (one.accuracy, one.low) == pytest.approx((values.mean(), low))
        assert one.high == pytest.approx(min(1, high))
        assert one.drop == pytest.approx(one.searched - values.mean())
    ps = {}
    for first, second in combinations(finalists, 2):
        only = np.array([[(a & ~b).sum(), (b & ~a).sum()] for a, b in zip(first.right, second.right, strict=True)])
        one, other = (only.T + 1) / (VALIDATION + 2)
        differences = by_trial[first.trial] - by_trial[second.trial]
        spread = deviation(differences, ((one + other - (one - other) ** 2) / (VALIDATION + 2)).mean())
        ps[first.trial, second.trial] = 2 * stats.t.sf(abs(differences.mean()) / spread, CUTS - 1)
    steps = np.minimum(1, np.maximum.accumulate(np.array([3, 2, 1]) * sorted(ps.values())))
    for duel in found.duels:
        pair = tuple(sorted((found.leader or 0, duel.trial)))
        assert duel.difference == pytest.approx((by_trial[found.leader or 0] - by_trial[duel.trial]).mean())
        assert duel.p == pytest.approx(ps[pair])
        assert duel.p_adjusted == pytest.approx(steps[sorted(ps.values()).index(ps[pair])])


def deviation(values: np.ndarray, least: float) -> float:
    """Return the corrected standard deviation of a mean over splits."""
    return float(np.sqrt((1 / CUTS + VALIDATION / TRAIN) * max(values.var(ddof=1), least)))


def test_equal_networks_are_rarely_found_to_differ() -> None:
    """By rules 1, of run-offs of ten equally good networks at most one in twenty finds a difference."""
    rejected = sum(
        not all(one.tied for one in verdict([finalist(n, 0.9, 10, seed) for n in range(10)], TRAIN, {}, 1).contenders)
        for seed in range(100)
    )

    assert rejected <= 5


def test_each_split_has_its_own_table_of_disagreements() -> None:
    """McNemar's test counts images, and p is SciPy's binomial p."""
    first, second = finalist(1, 0.95, 10), finalist(2, 0.7, 20)
    (duel,) = verdict([first, second], TRAIN, {}, RULES).duels

    assert len(duel.disagreements) == CUTS
    for one, a, b in zip(duel.disagreements, first.right, second.right, strict=True):
        counts = (
            sum(x and not y for x, y in zip(a, b, strict=True)),
            sum(y and not x for x, y in zip(a, b, strict=True)),
        )
        assert (one.only_leader, one.only_other) == counts
        assert one.exact == pytest.approx(stats.binomtest(counts[0], sum(counts)).pvalue)
        assert one.mid < one.exact


def test_a_trial_that_was_not_trained_to_the_end_cannot_win() -> None:
    """Each lost trial has its reason; if all are lost, there is no winner."""
    alone = verdict([finalist(1, 0.9, 10)], TRAIN, {2: "seed 0 is diverged"}, RULES)
    nobody = verdict([], TRAIN, {1: "a", 2: "b"}, RULES)

    assert (alone.winner, alone.duels, alone.lost) == (1, [], {2: "seed 0 is diverged"})
    assert (nobody.winner, nobody.contenders) == (None, [])
