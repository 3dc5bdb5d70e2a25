"""Fronts: trials that no other beats in both what they reach and what they cost."""

from collections.abc import Callable, Sequence

from worker.tables import Job, Trial


def front(job: Job, trials: Sequence[Trial], cost: Callable[[Trial], float | None]) -> list[Trial]:
    """The judged trials of which none other costs no more and reaches as much, the cheapest first.

    Of equals in both the one that was begun first stands for all. Trials whose cost is not known are left out.
    """
    known = [(cost(trial), trial) for trial in trials if trial.value is not None]
    priced = [(price, trial) for price, trial in known if price is not None]
    sign = 1 if job.maximize else -1
    found: list[Trial] = []
    best = float("-inf")
    for _, trial in sorted(priced, key=lambda pair: (pair[0], -sign * (pair[1].value or 0), pair[1].number)):
        reached = sign * (trial.value or 0.0)
        if reached > best:
            best = reached
            found.append(trial)
    return found
