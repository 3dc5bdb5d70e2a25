"""The figures of a report: history, learning curves, parameters and Pareto fronts."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from api.report.axes import categories, linear, logarithmic, objective_axis, padded
from api.report.costs import CostOf, costs, front_of
from api.report.facts import Facts
from api.report.svg import Axis, SvgPlot
from api.report.wording import Wording
from ml.parameters.space import Dimension
from ml.records import epochs_of
from worker.database.tables import Trial

MAX_POINTS = 2000  # trials in one figure; of more trials, the best are drawn, and every second, third, … of the rest
SMALL = (320, 230)  # width and height in pixels of figures in a row
MAX_CATEGORIES = 8  # values of a parameter on one axis; the last ones share a place if there are more


@dataclass(frozen=True)
class Figure:
    """A drawing and its caption."""

    drawing: SvgPlot
    caption: str


class Figures:
    """The figures of one job in one language."""

    def __init__(self, facts: Facts, winner: Trial | None, wording: Wording) -> None:
        self.facts = facts
        self.winner = winner
        self.t = wording
        self.maximize = facts.job.maximize
        self.objective = wording("validation accuracy" if self.maximize else "validation loss")
        self.shown = thinned(facts.best)
        values = [self._value(trial) for trial in self.shown]
        self.axis, self.outside = objective_axis(wording, self.objective, values, self.maximize)

    def history(self) -> Figure:
        """Draw each trial's value, and the best so far."""
        numbers = [trial.number for trial in self.shown]
        x = linear(self.t, self.t("trial"), -0.5, max(numbers) + 0.5, whole=True)
        plot = SvgPlot(self.t("Optimization history"), x, self.axis)
        best_numbers, best_values = self._best_so_far()
        plot.steps([*best_numbers, max(numbers) + 0.5], [*best_values, best_values[-1]], "best")
        self._trials(plot, self.shown, lambda trial: trial.number)
        caption = self.t("Value of each trial; the line is the best so far.")
        if len(self.shown) < len(self.facts.with_value):
            some = self.t(
                "{n} of {all} trials are drawn, including the best.",
                n=self.t.number(len(self.shown)),
                all=self.t.number(len(self.facts.with_value)),
            )
            caption = f"{caption} {some}"
        return Figure(plot, self._with_outside(caption))

    def curves(self) -> Figure | None:
        """Draw the learning curves of the best trials; None if no trial was measured twice."""
        measured = {
            number: [(epochs_of(m.step), value) for m in rows if (value := self._measured(m)) is not None]
            for number, rows in self.facts.curves.items()
        }
        if not any(len(points) > 1 for points in measured.values()):
            return None
        flat = [point for points in measured.values() for point in points]
        y, _ = objective_axis(self.t, self.objective, [value for _, value in flat], self.maximize)
        x = linear(self.t, self.t("epochs"), 0, max(epoch for epoch, _ in flat))
        plot = SvgPlot(self.t("Learning curves"), x, y)
        for rank, (number, points) in reversed(list(enumerate(measured.items()))):
            if not points:
                continue
            xs, ys = zip(*points, strict=True)
            plot.line(xs, ys, "curve first" if rank == 0 else "curve", self.t("trial {number}", number=number))
        sentence = "The {n} best trials by epoch; the best trial has the thick line."
        caption = self.t(sentence if len(measured) > 1 else "The trial by epoch.", n=len(measured))
        return Figure(plot, caption)

    def parameters(self) -> list[Figure]:
        """Draw the objective against each parameter of the search space."""
        space = self.facts.spec.search_space
        drawn = (self._parameter(name, dimension) for name, dimension in space.items())
        return [figure for found in drawn for figure in found]

    def fronts(self) -> list[Figure]:
        """Draw the objective against each cost, with the Pareto front."""
        return [figure for name, of in costs(self.facts).items() if (figure := self._front(name, of)) is not None]

    def _parameter(self, name: str, dimension: Dimension) -> Iterator[Figure]:
        for label, of in _aspects(name, self.shown):
            values = [of(trial) for trial in self.shown]
            if len(set(map(str, values))) < 2:
                continue
            numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
            x, place = self._numbers(label, values, dimension) if numeric else self._names(label, values)
            plot = SvgPlot(f"{self.objective}: {label}", x, self.axis, *SMALL)
            self._trials(plot, self.shown, lambda trial, of=of, place=place: place(of(trial)))  # type: ignore[misc]
            yield Figure(plot, label)

    def _numbers(self, label: str, values: Sequence[Any], dimension: Dimension) -> tuple[Axis, Callable[[Any], float]]:
        low, high = min(values), max(values)
        if low > 0 and (getattr(dimension, "log", False) or high / low >= 100):
            return logarithmic(self.t, label, low, high), float
        whole = all(isinstance(value, int) for value in values)
        return linear(self.t, label, *padded(values), whole=whole), float

    def _names(self, label: str, values: Sequence[Any]) -> tuple[Axis, Callable[[Any], float]]:
        names = sorted({self.t.value(value) for value in values})
        if len(names) > MAX_CATEGORIES:
            names = [*names[: MAX_CATEGORIES - 1], self.t("others")]
        return categories(label, names), lambda value: float(_place(names, self.t.value(value)))

    def _front(self, name: str, cost_of: CostOf) -> Figure | None:
        front = [t for t in front_of(self.facts.job, self.facts.with_value, cost_of) if (cost_of(t) or 0) > 0]
        of_front = {trial.number for trial in front}
        others = [trial for trial in self.shown if (cost_of(trial) or 0) > 0 and trial.number not in of_front]
        drawn = [*others, *front]
        if len({cost_of(trial) for trial in drawn}) < 2:
            return None
        costs = [float(cost_of(trial) or 0) for trial in drawn]
        plot = SvgPlot(
            f"{self.objective}: {self.t(name)}",
            logarithmic(self.t, self.t(name), min(costs), max(costs)),
            self.axis,
            *SMALL,
        )
        plot.steps([float(cost_of(t) or 0) for t in front], [self._value(t) for t in front], "best")
        self._trials(plot, drawn, lambda trial: float(cost_of(trial) or 0))
        return Figure(plot, self.t(name))

    def _trials(self, plot: SvgPlot, trials: Sequence[Trial], x: Callable[[Trial], float]) -> None:
        """Draw a dot for each trial; the winner's dot comes last, on top of the others."""
        for kind, chosen in self._kinds(trials):
            names = [self._name(trial) for trial in chosen]
            plot.points([x(trial) for trial in chosen], [self._value(trial) for trial in chosen], kind, names)

    def _kinds(self, trials: Sequence[Trial]) -> Iterator[tuple[str, list[Trial]]]:
        best = None if self.winner is None else self.winner.number
        yield "trial pruned", [trial for trial in trials if trial.state == "pruned" and trial.number != best]
        yield "trial", [trial for trial in trials if trial.state != "pruned" and trial.number != best]
        yield "trial winner", [trial for trial in trials if trial.number == best]

    def _name(self, trial: Trial) -> str:
        value = self.t.percent(trial.value) if self.maximize else self.t.number(trial.value)
        return f"{self.t('trial {number}', number=trial.number)}: {value}"

    def _best_so_far(self) -> tuple[list[float], list[float]]:
        """Return the numbers of the trials that set a new best, and their values."""
        sign = 1 if self.maximize else -1
        numbers: list[float] = []
        values: list[float] = []
        for trial in self.facts.with_value:
            value = self._value(trial)
            if not values or sign * value > sign * values[-1]:
                numbers.append(trial.number)
                values.append(value)
        return numbers, values

    def _value(self, trial: Trial) -> float:
        return float(trial.value or 0.0)  # every trial in a figure has a value

    def _measured(self, row: Any) -> float | None:
        value: float | None = row.val_accuracy if self.maximize else row.val_loss
        return value

    def _with_outside(self, caption: str) -> str:
        if not self.outside:
            return caption
        sentence = "{n} trials are outside the axis and drawn at its edge."
        single = "One trial is outside the axis and drawn at its edge."
        return f"{caption} {self.t(sentence if self.outside > 1 else single, n=self.outside)}"


def thinned(best: Sequence[Trial]) -> list[Trial]:
    """Return the trials to draw, of trials sorted best first.

    All are drawn if at most `MAX_POINTS` are given. Else a tenth of the points goes to the best trials, and the other
    points are spread evenly over the rest.
    """
    if len(best) <= MAX_POINTS:
        return list(best)
    top = MAX_POINTS // 10
    return [*best[:top], *best[top :: -(-(len(best) - top) // (MAX_POINTS - top))]]


def _aspects(name: str, trials: Sequence[Trial]) -> list[tuple[str, Callable[[Trial], Any]]]:
    """Return what to draw of a parameter: its value, or the length and the sum of a list."""

    def value(trial: Trial) -> Any:
        return (trial.params or {}).get(name)

    if any(isinstance(value(trial), list) for trial in trials):
        return [
            (f"{name}: n", lambda trial: len(value(trial) or [])),
            (f"{name}: Σ", lambda trial: sum(value(trial) or [])),
        ]
    return [(name, value)]


def _place(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names) - 1
