"""What the trials of a report cost, and which of them no other beats in that."""

from collections.abc import Callable, Sequence

from api.report.facts import Facts
from ml.analysis.pareto import Point, front
from worker.database.tables import Job, Trial

Price = Callable[[Trial], float | None]


def costs(facts: Facts) -> dict[str, Price]:
    """What a trial may cost, by name; None where it is not known."""
    return {
        "weights": lambda trial: trial.weights,
        "FLOPs of one image": lambda trial: trial.flops,
        "seconds of training": lambda trial: trial.seconds,
        "µs of one image on one core": lambda trial: _microseconds(facts.latencies.get(trial.number)),
    }


def front_of(job: Job, trials: Sequence[Trial], price: Price) -> list[Trial]:
    """The judged trials of which none other costs no more and reaches as much, the cheapest first.

    Of equals in both the one that was begun first stands for all. Trials whose cost is not known are left out.
    """
    of_number = {trial.number: trial for trial in trials}
    known = ((trial, trial.value, price(trial)) for trial in trials)
    points = [
        Point(trial.number, value if job.maximize else -value, cost)
        for trial, value, cost in known
        if value is not None and cost is not None
    ]
    return [of_number[number] for number in front(points)]


def _microseconds(seconds: float | None) -> float | None:
    return None if seconds is None else 1e6 * seconds
