"""Axes that suit what is to be shown."""

from collections.abc import Sequence

from api.report.svg import Axis, linear_ticks, log_ticks
from api.report.wording import Wording

PAD = 0.04  # of the span, left free at both ends
CUT_SHARE = 0.15  # of the trials; where so few take half the height, they are put at the foot


def linear(wording: Wording, label: str, low: float, high: float, percent: bool = False, whole: bool = False) -> Axis:
    """A linear axis from `low` to `high`, in percent or of whole numbers; a single value gets room around it."""
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.05, high + (abs(high) or 1) * 0.05
    ticks = [tick for tick in linear_ticks(low, high) if not whole or tick.is_integer()]
    step = ticks[1] - ticks[0] if len(ticks) > 1 else high - low
    return Axis(label, low, high, tuple((tick, _tick(wording, tick, step, percent)) for tick in ticks))


def logarithmic(wording: Wording, label: str, low: float, high: float) -> Axis:
    """A logarithmic axis from `low` to `high`, both above 0."""
    if high <= low:
        low, high = low / 2, high * 2
    ticks = log_ticks(low, high)
    return Axis(label, low, high, tuple((tick, wording.number(tick)) for tick in ticks), log=True)


def padded(values: Sequence[float]) -> tuple[float, float]:
    """The range of values, with some room at both ends."""
    low, high = min(values), max(values)
    room = PAD * (high - low)
    return low - room, high + room


def reached(wording: Wording, label: str, values: Sequence[float], maximize: bool) -> tuple[Axis, int]:
    """An axis for what trials reached, and how many of them are put to its bad end.

    A few that hardly learned anything would press all others into a line.
    """
    ordered = sorted(values, reverse=not maximize)  # the worst first
    half = abs(ordered[-1] - ordered[0]) / 2
    most = int(CUT_SHARE * len(ordered))
    cut = next((n for n in range(1, most + 1) if 0 < abs(ordered[-1] - ordered[n]) < half), 0)
    shown = ordered[cut:]
    low, high = padded(shown)
    beyond = sum(value < low or value > high for value in values)
    return linear(wording, label, low, high, percent=maximize), beyond


def categories(label: str, names: Sequence[str]) -> Axis:
    """An axis with a place for each name, at 0, 1, 2, …"""
    return Axis(label, -0.5, len(names) - 0.5, tuple((float(i), name) for i, name in enumerate(names)))


def _tick(wording: Wording, tick: float, step: float, percent: bool) -> str:
    """A tick with as many places as its neighbours need to be told from it."""
    places = _places(100 * step if percent else step)
    if percent:
        return wording.percent(tick, places)
    return wording.number(tick) if abs(tick) >= 10_000 else wording.fixed(tick, places)


def _places(step: float) -> int:
    return next(n for n in range(13) if n == 12 or abs(round(step, n) - step) < 1e-9 * step)
