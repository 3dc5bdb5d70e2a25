"""The Pareto front: the trials that no other trial beats in both accuracy and cost."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Cost = Literal["seconds", "flops", "weights", "latency_seconds"]  # names of fields of an Observation


class Point(NamedTuple):
    """A trial with its accuracy and its cost."""

    number: int
    accuracy: float  # or another value, the higher the better
    cost: float  # the lower, the better


def front(points: Iterable[Point]) -> list[int]:
    """Return the numbers of the trials on the front, the cheapest first.

    A trial is not on the front if another is at least as accurate at no higher cost. Of trials that are equal in both,
    the one with the lowest number counts.
    """
    found: list[Point] = []
    for point in sorted(points, key=lambda point: (point.cost, -point.accuracy, point.number)):
        if not found or point.accuracy > found[-1].accuracy:
            found.append(point)
    return [point.number for point in found]
