"""Confidence intervals of shares, compared with SciPy."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from ml.statistics.intervals import wilson


@given(n=st.integers(1, 100_000), share=st.floats(0, 1), confidence=st.sampled_from([0.9, 0.95, 0.99]))
@settings(deadline=None)
def test_the_interval_equals_scipys(n: int, share: float, confidence: float) -> None:
    """This holds for any count, including 0 and all."""
    hits = round(share * n)
    expected = binomtest(hits, n).proportion_ci(confidence, method="wilson")

    assert wilson(hits, n, confidence) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize(("hits", "n"), [(0, 0), (2, 1), (-1, 5)])
def test_counts_that_are_no_share_are_refused(hits: int, n: int) -> None:
    """The total is 0, the count exceeds the total, or the count is negative."""
    with pytest.raises(ValueError, match="is not a share"):
        wilson(hits, n)
