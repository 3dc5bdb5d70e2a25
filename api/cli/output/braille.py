"""Line plots in Braille characters, 2 × 4 dots each (Unicode block U+2800)."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil

BLANK = 0x2800
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # bits of a character, by row and column

Line = Sequence[tuple[float, float]]  # points from left to right


def plot(lines: Sequence[Line], width: int, height: int) -> tuple[list[str], tuple[float, float] | None]:
    """Draw lines in `height` rows of `width` characters.

    Returns:
        The rows, and a pair of the smallest and largest y. The pair is None if there are no points.

    """
    points = [point for line in lines for point in line]
    if not points:
        return [" " * width] * height, None
    xs, ys = zip(*points, strict=True)
    low, high = min(ys), max(ys)
    cells = [[BLANK] * width for _ in range(height)]
    across = (2 * width - 1) / ((max(xs) - min(xs)) or 1)
    down = (4 * height - 1) / ((high - low) or 1)
    for line in lines:
        placed = [((x - min(xs)) * across, (high - y) * down) for x, y in line]
        for column, row in _dots(placed):
            cells[row // 4][column // 2] |= DOTS[row % 4][column % 2]
    return ["".join(map(chr, row)) for row in cells], (low, high)


def _dots(line: Line) -> set[tuple[int, int]]:
    """Return the dots on the way from point to point, as (column, row)."""
    found = {(round(x), round(y)) for x, y in line}
    for (x, y), (next_x, next_y) in pairwise(line):
        steps = ceil(max(abs(next_x - x), abs(next_y - y))) or 1
        found |= {(round(x + (next_x - x) * i / steps), round(y + (next_y - y) * i / steps)) for i in range(steps)}
    return found
