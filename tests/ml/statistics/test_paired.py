"""Paired tests, compared with exact enumeration and numerical integration."""

from fractions import Fraction
from itertools import pairwise
from math import comb, gamma, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ml.statistics.paired import corrected_t, difference_variance, holm, mcnemar, share_variance


def enumerated(first: int, second: int) -> tuple[Fraction, Fraction]:
    """Return the exact and the mid p-value: the probabilities of all outcomes that are at least as uneven, added up."""
    n = first + second
    chances = [Fraction(comb(n, k), 2**n) for k in range(n + 1)]
    distance = abs(first - second)
    exact = sum((chance for k, chance in enumerate(chances) if abs(2 * k - n) >= distance), Fraction(0))
    equal = sum((chance for k, chance in enumerate(chances) if abs(2 * k - n) == distance), Fraction(0))
    return exact, exact - equal / 2


def tail(t: float, freedom: int) -> float:
    """Return both tails of Student's t beyond ±t, by Simpson's rule on its density."""
    x = np.linspace(0, abs(t), 20_001)
    scale = gamma((freedom + 1) / 2) / (sqrt(freedom * pi) * gamma(freedom / 2))
    y = scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    weights = np.where(np.arange(len(x)) % 2, 4, 2)
    weights[[0, -1]] = 1
    return float(1 - 2 * (x[1] - x[0]) / 3 * (weights * y).sum())


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_equals_exact_enumeration(first: int, second: int) -> None:
    """The enumeration adds up exact fractions."""
    found, (exact, mid) = mcnemar(first, second), enumerated(first, second)

    assert found.exact == pytest.approx(float(exact), rel=1e-9)
    assert found.mid == pytest.approx(float(mid) if first + second else 1.0, rel=1e-9)


@pytest.mark.parametrize(("values", "train", "validation"), [([0.1, 0.3, -0.05, 0.2], 800, 200), ([1.0, 2.0], 72, 18)])
def test_the_corrected_test_equals_its_formula(values: list[float], train: int, validation: int) -> None:
    """Numpy computes the statistic, integration the tails, and the interval has p 0.05 at its ends."""
    found = corrected_t(values, train, validation)
    t = np.mean(values) / np.sqrt((1 / len(values) + validation / train) * np.var(values, ddof=1))

    assert found.t == pytest.approx(t)
    assert found.p == pytest.approx(tail(t, len(values) - 1), abs=1e-9)
    assert tail((found.mean - found.low) / (found.mean / t), len(values) - 1) == pytest.approx(0.05, abs=1e-6)
    assert found.high - found.mean == pytest.approx(found.mean - found.low)


def test_without_a_correction_the_test_is_the_paired_t_test() -> None:
    """With hardly any validation images, the result is that of SciPy's one-sample test."""
    values = np.random.default_rng(0).normal(0.1, 1, 12)

    assert corrected_t(values.tolist(), 10**15, 1).p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)


def test_the_p_value_of_values_that_do_not_vary_is_0_or_1() -> None:
    """If all are zero, p is 1; if all are equal but not zero, p is 0."""
    assert (corrected_t([0.0, 0.0], 8, 2).p, corrected_t([0.5, 0.5], 8, 2).p) == (1.0, 0.0)


def test_values_that_vary_too_little_get_the_least_variance() -> None:
    """A lead of one image on both of two splits proves nothing; a variance above the least is used as it is."""
    lucky = corrected_t([1 / 323, 1 / 323], 1294, 323, least=difference_variance(4, 3, 323))

    assert lucky.p > 0.5
    assert lucky.low < 0 < lucky.high
    assert corrected_t([0.1, 0.3], 8, 2, least=0.001) == corrected_t([0.1, 0.3], 8, 2)


@given(st.integers(1, 400), st.data())
def test_the_least_variances_are_those_of_shares_and_differences(images: int, data: st.DataObject) -> None:
    """For many images they are near the binomial and paired variances, and above 0 even if those are 0."""
    right = data.draw(st.integers(0, images))
    only_first = data.draw(st.integers(0, images))
    only_second = data.draw(st.integers(0, images - only_first))
    share, difference = right / images, (only_first - only_second) / images
    pairs = (only_first + only_second) / images - difference**2

    assert 0 < share_variance(right, images) <= 0.25 / images
    assert share_variance(1000 * right, 1000 * images) == pytest.approx(
        share * (1 - share) / (1000 * images), rel=0.01, abs=1e-5 / images
    )
    assert difference_variance(only_first, only_second, images) > 0
    assert difference_variance(1000 * only_first, 1000 * only_second, 1000 * images) == pytest.approx(
        pairs / (1000 * images), rel=0.01, abs=1e-5 / images
    )


@pytest.mark.parametrize("values", [[], [0.1]])
def test_fewer_than_two_splits_are_refused(values: list[float]) -> None:
    """A single value has no variance."""
    with pytest.raises(ValueError, match="two or more"):
        corrected_t(values, 8, 2)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_as_the_step_down_procedure_does(ps: list[float]) -> None:
    """At any level, Holm's loop rejects exactly the adjusted p-values up to that level."""
    adjusted = holm(ps)
    for level in (0.01, 0.05, 0.2, 0.7):
        rejected, order = set(), sorted(range(len(ps)), key=lambda i: ps[i])
        for rank, i in enumerate(order):
            if ps[i] * (len(ps) - rank) > level:
                break
            rejected.add(i)

        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
    assert all(a <= b for a, b in pairwise(sorted(adjusted)))


def test_holms_correction_gives_the_papers_example() -> None:
    """Holm (1979): n times the smallest, n − 1 times the next, never below the one before, at most 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
