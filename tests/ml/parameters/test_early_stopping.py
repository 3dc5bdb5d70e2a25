"""Early stopping, compared with a plain implementation of its rules."""

from fractions import Fraction
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ml.parameters.early_stopping import EarlyStopping, Patience

Rule = Literal["best", "previous"]

# Whole 64ths are exact in binary, so that the oracle's fractions and the floats under test agree on every comparison.
sixty_fourths = st.integers(0, 64).map(lambda n: n / 64)


def _stopped_at(rule: EarlyStopping, losses: list[float]) -> int | None:
    """Return the epoch, counted from 1, in which `rule` ends a trial with these losses."""
    patience = Patience(rule)
    return next((epoch for epoch, loss in enumerate(losses, 1) if patience.ends(loss)), None)


def _expected_stop(rule: EarlyStopping, losses: list[float]) -> int | None:
    """Return the same epoch from the whole list: find the epochs that cost patience, then the one that uses it up."""
    exact = [Fraction(loss) for loss in losses]
    delta = Fraction(rule.min_delta)
    if rule.rule == "best":
        costs = [i > 0 and min(exact[:i]) - exact[i] < delta for i in range(len(exact))]
        ends = [n for n in range(rule.patience, len(costs) + 1) if all(costs[n - rule.patience : n])]
    else:
        costs = [i > 0 and exact[i - 1] - exact[i] < delta for i in range(len(exact))]
        ends = [n for n in range(1, len(costs) + 1) if sum(costs[:n]) == rule.patience]
    return min(ends, default=None)


@pytest.mark.parametrize("rule", ["best", "previous"])
@given(losses=st.lists(sixty_fourths, max_size=30), patience=st.integers(1, 5), min_delta=sixty_fourths)
def test_a_trial_ends_in_the_epoch_that_the_rule_names(
    rule: Rule, losses: list[float], patience: int, min_delta: float
) -> None:
    """For any losses, patience ends in the same epoch as in the plain implementation."""
    stopping = EarlyStopping(patience=patience, min_delta=min_delta, rule=rule)

    assert _stopped_at(stopping, losses) == _expected_stop(stopping, losses)


@pytest.mark.parametrize(
    ("losses", "best", "previous"),
    [
        ([1.0, 0.5, 0.25, 0.125], None, None),
        ([1.0, 1.0, 1.0, 1.0], 3, 3),
        ([1.0, 2.0, 0.5, 0.75, 0.25, 0.125], None, 4),  # an improvement restores patience only under "best"
        ([1.0, 2.0, 1.5, 1.25], 3, None),  # better than the previous epoch, but not than the best
        ([1.0, 0.96875, 0.9375, 0.90625], 3, 3),  # creeping down by less than min_delta
    ],
)
def test_both_rules_end_in_the_epochs_counted_by_hand(
    losses: list[float], best: int | None, previous: int | None
) -> None:
    """The examples have patience 2 and min_delta 1/16."""
    ends = [_stopped_at(EarlyStopping(min_delta=0.0625, rule=rule), losses) for rule in ("best", "previous")]

    assert ends == [best, previous]


def test_the_first_epoch_costs_nothing() -> None:
    """The first epoch has no earlier loss, so patience 1 survives any first loss."""
    patience = Patience(EarlyStopping(patience=1))

    assert not patience.ends(1e30)


def test_exactly_min_delta_counts_as_improvement() -> None:
    """A loss lower by exactly min_delta is an improvement."""
    patience = Patience(EarlyStopping(patience=1, min_delta=0.25))

    assert [patience.ends(loss) for loss in (1.0, 0.75, 0.5)] == [False, False, False]


def test_the_defaults_are_those_of_the_report() -> None:
    """By default patience is 2, min_delta 0.001, and improvement is measured against the best."""
    stated = EarlyStopping().model_dump()

    assert stated == {"patience": 2, "min_delta": 0.001, "rule": "best"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"patience": 0},
        {"patience": 1.5},
        {"patience": "2"},
        {"min_delta": -0.001},
        {"min_delta": float("nan")},
        {"min_delta": float("inf")},
        {"rule": "worst"},
        {"rules": "best"},
    ],
)
def test_an_invalid_rule_is_refused(wrong: dict[str, Any]) -> None:
    """A patience below 1, a negative or infinite min_delta and an unknown rule or field are refused by name."""
    with pytest.raises(ValidationError) as caught:
        EarlyStopping.model_validate(wrong)

    assert [error["loc"] for error in caught.value.errors()] == [tuple(wrong)]
