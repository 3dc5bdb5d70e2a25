"""Plots with two axes as SVG text. Coordinates are rounded, so that the same data give the same bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10

from markupsafe import escape

LEFT, RIGHT, TOP, BOTTOM = 62, 24, 12, 44  # margins around the plot area, in pixels
STEPS = (1, 2, 2.5, 5, 10)  # between ticks, times a power of ten


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]  # values and their labels
    log: bool = False

    def share(self, value: float) -> float:
        """Return the position of a value, from 0 at the low end to 1 at the high end. Clamp values outside."""
        low, high, value = (log10(x) if self.log else x for x in (self.low, self.high, max(value, self._least)))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    @property
    def _least(self) -> float:
        return self.low if self.log else float("-inf")


@dataclass
class SvgPlot:
    """A plot; its methods add marks."""

    title: str
    x: Axis
    y: Axis
    width: int = 640
    height: int = 300
    marks: list[str] = field(default_factory=list)

    def points(self, xs: Sequence[float], ys: Sequence[float], kind: str, names: Sequence[str] = ()) -> None:
        """Add dots of a CSS class; `names` are their tooltips."""
        for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
            title = f"<title>{escape(names[i])}</title>" if names else ""
            self.marks.append(
                f'<circle class="{kind}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="3">{title}</circle>'
            )

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str, name: str = "") -> None:
        """Add a line through points; `name` is its tooltip."""
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        title = f"<title>{escape(name)}</title>" if name else ""
        self.marks.append(f'<polyline class="{kind}" points="{path}">{title}</polyline>')

    def steps(self, xs: Sequence[float], ys: Sequence[float], kind: str) -> None:
        """Add a step line that holds each value up to the next point."""
        corners = [(x, y) for i, x in enumerate(xs) for y in ([ys[i - 1], ys[i]] if i else [ys[0]])]
        self.line([x for x, _ in corners], [y for _, y in corners], kind)

    def bar(self, low: float, high: float, height: float, kind: str, name: str) -> None:
        """Add a bar between two values of x; `name` is its tooltip."""
        left, right, top = self._x(low), self._x(high), self._y(height)
        size = f'x="{left + 1:.1f}" y="{top:.1f}" width="{right - left - 2:.1f}" height="{self._foot - top:.1f}"'
        self.marks.append(f'<rect class="{kind}" {size}><title>{escape(name)}</title></rect>')

    def __html__(self) -> str:
        """Return the plot as an SVG element."""
        elements = [*self._grid(), *self.marks, *self._labels()]
        head = f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.title)}">'
        return head + "".join(elements) + "</svg>"

    @property
    def _foot(self) -> int:
        return self.height - BOTTOM

    def _x(self, value: float) -> float:
        return LEFT + self.x.share(value) * (self.width - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        return self._foot - self.y.share(value) * (self._foot - TOP)

    def _grid(self) -> Iterable[str]:
        right = self.width - RIGHT
        for value, text in self.y.ticks:
            y = self._y(value)
            yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            yield f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>'
        for value, text in self.x.ticks:
            x = self._x(value)
            yield f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{self._foot}"/>'
            yield f'<text class="tick" x="{x:.1f}" y="{self._foot + 16}" text-anchor="middle">{escape(text)}</text>'

    def _labels(self) -> Iterable[str]:
        middle, centre = (LEFT + self.width - RIGHT) / 2, (TOP + self._foot) / 2
        at = f'x="{middle:.1f}" y="{self.height - 8}"'
        yield f'<text class="axis" {at} text-anchor="middle">{escape(self.x.label)}</text>'
        turned = f'transform="translate(14 {centre:.1f}) rotate(-90)"'
        yield f'<text class="axis" {turned} text-anchor="middle">{escape(self.y.label)}</text>'


def linear_ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Return about `wanted` round values between two."""
    span = high - low
    power = 10.0 ** floor(log10(span / wanted))
    step = next(power * s for s in STEPS if power * s * wanted >= span * 0.999)
    lowest = ceil(low / step - 1e-9)
    decimals = max(0, 2 - floor(log10(step)))  # further decimals are rounding errors
    return [round(n * step, decimals) for n in range(lowest, floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return round values between two values above 0.

    These are powers of ten. If there are fewer than three, multiples by 3, or by 2 and 5, or linear ticks follow.
    """
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        values = (float(f"{factor}e{power}") for power in powers for factor in factors)
        found = [value for value in values if low * 0.999 <= value <= high * 1.001]
        if len(found) > 2:
            return found
    return linear_ticks(low, high, wanted=4)
