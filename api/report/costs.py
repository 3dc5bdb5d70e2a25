"""The costs of a report's trials, and their Pareto fronts."""

from collections.abc import Callable, Sequence

from api.report.facts import Facts
from ml.analysis.pareto import Point, front
from worker.database.tables import Job, Trial

CostOf = Callable[[Trial], float | None]  # None if the cost is unknown


def costs(facts: Facts) -> dict[str, CostOf]:
    """Return the kinds of cost by name."""
    return {
        "weights": lambda trial: trial.weights,
        "FLOPs per image": lambda trial: trial.flops,
        "training seconds": lambda trial: trial.seconds,
        "latency in µs (one image, one core)": lambda trial: _microseconds(facts.latencies.get(trial.number)),
    }


def front_of(job: Job, trials: Sequence[Trial], cost_of: CostOf) -> list[Trial]:
    """Return the Pareto front: the trials that no other trial beats in both value and cost, cheapest first.

    Of trials that are equal in both, the first one started stays. Trials without a value or a known cost are left out.
    """
    of_number = {trial.number: trial for trial in trials}
    known = ((trial, trial.value, cost_of(trial)) for trial in trials)
    points = [
        Point(trial.number, value if job.maximize else -value, cost)
        for trial, value, cost in known
        if value is not None and cost is not None
    ]
    return [of_number[number] for number in front(points)]


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1e6 * seconds
