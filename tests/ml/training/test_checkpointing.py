"""The rule for checkpoints, with a made-up clock."""

import pytest

from ml.training.checkpointing import CHECKPOINT_SHARE, CheckpointRule


class _Clock:
    """A clock that moves only if a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    """Return the clock that checkpoints use during a test."""
    clock = _Clock()
    monkeypatch.setattr("ml.training.checkpointing.monotonic", clock)
    return clock


def test_the_first_checkpoint_is_due_after_the_minimum_time(clock: _Clock) -> None:
    """The clock of a rule starts when the rule is made."""
    rule = CheckpointRule(15)
    due = []
    for seconds in (0, 15, 1):
        clock.now += seconds
        due.append(rule.due)

    assert due == [False, False, True]


def test_the_next_checkpoint_is_due_the_same_time_after_the_last(clock: _Clock) -> None:
    """A quick checkpoint restarts the clock when it ends."""
    rule = CheckpointRule(15)
    clock.now += 16
    with rule.timed():
        clock.now += 0.1
    clock.now += 15
    early = rule.due
    clock.now += 0.5

    assert (early, rule.due) == (False, True)


def test_a_slow_checkpoint_delays_the_next_one(clock: _Clock) -> None:
    """After a checkpoint of 1 second the next is due after 50: 1 / 0.02."""
    rule = CheckpointRule(15)
    with rule.timed():
        clock.now += 1
    clock.now += 49.5
    early = rule.due
    clock.now += 1

    assert (early, rule.due) == (False, True)


@pytest.mark.parametrize("seconds", [0.0, 0.5, 15.0])
@pytest.mark.parametrize("cost", [0.001, 0.02, 0.4, 3.0])
def test_checkpoints_take_no_more_than_their_share(seconds: float, cost: float, clock: _Clock) -> None:
    """Over 100,000 steps of 10 ms, with a check after each, checkpoints take at most 2 %, apart from the first."""
    rule, made, started = CheckpointRule(seconds), 0, clock.now
    for _ in range(100_000):
        clock.now += 0.01
        if rule.due:
            with rule.timed():
                clock.now += cost
            made += 1

    assert made >= 2
    assert (made - 1) * cost <= CHECKPOINT_SHARE * (clock.now - started)


def test_a_checkpoint_that_fails_does_not_count(clock: _Clock) -> None:
    """If making it raises an error, the next checkpoint is due at once."""
    rule = CheckpointRule(15)
    clock.now += 16
    with pytest.raises(OSError, match="no space"), rule.timed():
        raise OSError("no space left")

    assert rule.due
