"""The Pareto front: what no other beats in both accuracy and cost."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Cost = Literal["seconds", "flops", "weights", "latency_seconds"]  # of an Observation: its fields of these names


class Point(NamedTuple):
    """A trial, what it reached and what it costs."""

    number: int
    accuracy: float  # or whatever else is the better the higher it is
    cost: float  # the lower, the better


def front(points: Iterable[Point]) -> list[int]:
    """The numbers of those that no other is at least as accurate as for at most the cost, the cheapest first.

    Of equals in both, the first.
    """
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy, point.number)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return [point.number for point in found]
