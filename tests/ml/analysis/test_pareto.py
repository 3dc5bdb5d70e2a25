"""The Pareto front, compared with its definition."""

from hypothesis import given
from hypothesis import strategies as st

from ml.analysis.pareto import Point, front

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12).map(
    lambda pairs: [Point(number, float(a), float(c)) for number, (a, c) in enumerate(pairs)]
)


def beats(one: Point, other: Point) -> bool:
    """Return whether `one` dominates `other`: no worse in accuracy or cost, and better in one or begun earlier."""
    no_worse = one.accuracy >= other.accuracy and one.cost <= other.cost
    better = one.accuracy > other.accuracy or one.cost < other.cost
    return no_worse and (better or one.number < other.number)


@given(points)
def test_the_front_has_exactly_the_unbeaten_points(points: list[Point]) -> None:
    """All pairs are compared; along the front cost and accuracy rise together."""
    expected = {one.number for one in points if not any(beats(other, one) for other in points)}
    found = front(points)
    of_number = {point.number: point for point in points}

    assert set(found) == expected
    assert found == sorted(found, key=lambda number: of_number[number].cost)
    assert [of_number[n].accuracy for n in found] == sorted(of_number[n].accuracy for n in found)
