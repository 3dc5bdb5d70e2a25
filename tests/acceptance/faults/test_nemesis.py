"""Random faults from a seed, on a cluster with two workers and several jobs."""

import os
from itertools import count
from time import monotonic

import pytest
from acceptance.faults.nemesis import trouble

SEEDS = [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 10))]
SECONDS = 12.0
CHAOS_SECONDS = float(os.environ.get("CHAOS_SECONDS", "0"))
CHAOS_SEED = int(os.environ.get("CHAOS_SEED", "1000"))


@pytest.mark.parametrize("seed", SEEDS)
def test_no_trouble_breaks_a_promise(seed: int) -> None:
    """Whatever is killed, stopped, locked or cancelled: every accepted job has a history without a violation."""
    assert trouble("postgres" if seed % 2 else "sqlite", seed, SECONDS) == []


@pytest.mark.long
@pytest.mark.skipif(not CHAOS_SECONDS, reason="`make chaos` says how long")
@pytest.mark.timeout(0)
def test_chaos() -> None:
    """Seed after seed for as long as `make chaos` says, on both databases in turn; each that fails is printed."""
    begun, failed = monotonic(), {}
    for seed in count(CHAOS_SEED):
        if monotonic() - begun > CHAOS_SECONDS:
            break
        try:
            found = trouble("postgres" if seed % 2 else "sqlite", seed, SECONDS)
        except AssertionError as error:  # what did not happen in time
            found = [str(error)]
        if found:
            failed[seed] = found
            print(f"nemesis: seed {seed} FAILED: {found}", flush=True)
    print(f"nemesis: {seed - CHAOS_SEED} seeds from {CHAOS_SEED}; failed: {sorted(failed) or 'none'}", flush=True)

    assert failed == {}
