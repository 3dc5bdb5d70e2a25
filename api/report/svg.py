"""Drawings: a plot with two axes as SVG text, with whole coordinates so that the same data give the same bytes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, floor, log10

from markupsafe import escape

LEFT, RIGHT, TOP, BOTTOM = 62, 24, 12, 44  # pixels around the area that is plotted in
STEPS = (1, 2, 2.5, 5, 10)  # of ticks, by powers of ten


@dataclass(frozen=True)
class Axis:
    """What an axis shows, from `low` to `high`, and how its ticks are written."""

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high one; what lies beyond is put to the end."""
        low, high, value = (log10(x) if self.log else x for x in (self.low, self.high, max(value, self._least)))
        return min(1.0, max(0.0, (value - low) / (high - low)))

    @property
    def _least(self) -> float:
        return self.low if self.log else float("-inf")


@dataclass
class SvgPlot:
    """A plot that grows by marks."""

    title: str
    x: Axis
    y: Axis
    width: int = 640
    height: int = 300
    marks: list[str] = field(default_factory=list)

    def points(self, xs: Sequence[float], ys: Sequence[float], kind: str, names: Sequence[str] = ()) -> None:
        """Dots of a CSS class, each with a text that is shown when it is pointed at."""
        for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
            title = f"<title>{escape(names[i])}</title>" if names else ""
            self.marks.append(
                f'<circle class="{kind}" cx="{self._x(x):.1f}" cy="{self._y(y):.1f}" r="3">{title}</circle>'
            )

    def line(self, xs: Sequence[float], ys: Sequence[float], kind: str, name: str = "") -> None:
        """A line through points."""
        path = " ".join(f"{self._x(x):.1f},{self._y(y):.1f}" for x, y in zip(xs, ys, strict=True))
        title = f"<title>{escape(name)}</title>" if name else ""
        self.marks.append(f'<polyline class="{kind}" points="{path}">{title}</polyline>')

    def steps(self, xs: Sequence[float], ys: Sequence[float], kind: str) -> None:
        """A line that keeps each value up to the next."""
        corners = [(x, y) for i, x in enumerate(xs) for y in ([ys[i - 1], ys[i]] if i else [ys[0]])]
        self.line([x for x, _ in corners], [y for _, y in corners], kind)

    def bar(self, low: float, high: float, height: float, kind: str, name: str) -> None:
        """A bar from the foot of the plot, between two values of x."""
        left, right, top = self._x(low), self._x(high), self._y(height)
        size = f'x="{left + 1:.1f}" y="{top:.1f}" width="{right - left - 2:.1f}" height="{self._foot - top:.1f}"'
        self.marks.append(f'<rect class="{kind}" {size}><title>{escape(name)}</title></rect>')

    def __html__(self) -> str:
        """The drawing as an SVG element."""
        parts = [*self._grid(), *self.marks, *self._labels()]
        head = f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.title)}">'
        return head + "".join(parts) + "</svg>"

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
    """Round values between two, about as many as are wanted."""
    span = high - low
    power = 10.0 ** floor(log10(span / wanted))
    step = next(power * s for s in STEPS if power * s * wanted >= span * 0.999)
    first = ceil(low / step - 1e-9)
    places = max(0, 2 - floor(log10(step)))  # the others are rounding
    return [round(n * step, places) for n in range(first, floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between two above 0: powers of ten, and others where there are fewer than three of those."""
    powers = range(floor(log10(low)), ceil(log10(high)) + 1)
    for factors in ((1,), (1, 3), (1, 2, 5)):
        values = (float(f"{factor}e{power}") for power in powers for factor in factors)
        found = [value for value in values if low * 0.999 <= value <= high * 1.001]
        if len(found) > 2:
            return found
    return linear_ticks(low, high, wanted=4)
