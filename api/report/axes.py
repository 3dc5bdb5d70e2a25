"""Axes of plots, scaled to their data."""

from collections.abc import Sequence

from api.report.svg import Axis, linear_ticks, log_ticks
from api.report.wording import Wording

PAD = 0.04  # share of the span that stays free at each end
MAX_OUTSIDE = 0.15  # largest share of trials that may be left outside an axis


def linear(wording: Wording, label: str, low: float, high: float, percent: bool = False, whole: bool = False) -> Axis:
    """Return a linear axis from `low` to `high`.

    Args:
        wording: language of the tick labels.
        label: name of the axis.
        low: lower end; if it equals `high`, the axis gets room on both sides.
        high: upper end.
        percent: write shares as percentages.
        whole: put ticks at whole numbers only.

    """
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.05, high + (abs(high) or 1) * 0.05
    ticks = [tick for tick in linear_ticks(low, high) if not whole or tick.is_integer()]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    return Axis(label, low, high, tuple((tick, _tick(wording, tick, step, percent)) for tick in ticks))


def logarithmic(wording: Wording, label: str, low: float, high: float) -> Axis:
    """Return a logarithmic axis from `low` to `high`, both above 0."""
    if high <= low:
        low, high = low / 2, high * 2
    ticks = log_ticks(low, high)
    return Axis(label, low, high, tuple((tick, wording.number(tick)) for tick in ticks), log=True)


def padded(values: Sequence[float]) -> tuple[float, float]:
    """Return the range of values with some room at both ends."""
    low, high = min(values), max(values)
    room = PAD * (high - low)
    return low - room, high + room


def objective_axis(wording: Wording, label: str, values: Sequence[float], maximize: bool) -> tuple[Axis, int]:
    """Return an axis for the values of trials, and the number of values outside it.

    A few trials that learned almost nothing would squeeze all others into a line. So the worst values stay outside if
    that halves the range, up to a share of `MAX_OUTSIDE`.
    """
    ordered = sorted(values, reverse=not maximize)  # worst first
    half = abs(ordered[-1] - ordered[0]) / 2
    most = int(MAX_OUTSIDE * len(ordered))
    left_out = next((n for n in range(1, most + 1) if 0 < abs(ordered[-1] - ordered[n]) < half), 0)
    low, high = padded(ordered[left_out:])
    outside = sum(value < low or value > high for value in values)
    return linear(wording, label, low, high, percent=maximize), outside


def categories(label: str, names: Sequence[str]) -> Axis:
    """Return an axis with the names at 0, 1, 2, …"""
    return Axis(label, -0.5, len(names) - 0.5, tuple((float(i), name) for i, name in enumerate(names)))


def _tick(wording: Wording, tick: float, step: float, percent: bool) -> str:
    """Return a tick's label with enough decimals to differ from its neighbours."""
    decimals = _decimals(100 * step if percent else step)
    return wording.percent(tick, decimals) if percent else wording.fixed(tick, decimals)


def _decimals(step: float) -> int:
    return next(n for n in range(13) if n == 12 or abs(round(step, n) - step) < 1e-9 * step)
