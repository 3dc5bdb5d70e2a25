"""A report's section about a run-off."""

from typing import cast

from markupsafe import Markup

from api.report.axes import categories, linear, padded
from api.report.facts import Facts
from api.report.svg import SvgPlot
from api.report.tables import Table
from api.report.wording import Wording
from ml.statistics.run_off_result import Contender, Disagreement, Duel, Verdict


class RunOffSection:
    """A run-off in one language."""

    def __init__(self, facts: Facts, wording: Wording) -> None:
        self.reruns = facts.reruns
        self.t = wording
        self.winner = facts.run_off.winner if facts.run_off else None
        self.result = Verdict.model_validate(facts.run_off.verdict) if facts.run_off else None

    @property
    def about(self) -> str:
        """One paragraph on the number of trials and seeds."""
        trials, seeds = (len({getattr(one, name) for one in self.reruns}) for name in ("trial", "seed"))
        sentence = "{n} trials, each trained again on {m} fresh seeds. Each seed also draws new validation images."
        return self.t(sentence, n=trials, m=seeds)

    @property
    def progress(self) -> str:
        """The number of trainings that have ended, in a sentence."""
        ended = sum(one.state is not None for one in self.reruns)
        return self.t("Not decided yet: {n} of {all} trainings have ended.", n=ended, all=len(self.reruns))

    @property
    def outcome(self) -> str:
        """The winner and the reason, in a sentence."""
        result, t = self.result, self.t
        if result is None or result.leader is None:
            return t("No trial completed all its trainings, so the best trial of the search is published.")
        tied = [one.trial for one in result.contenders if one.tied and one.trial != result.leader]
        if not tied:
            return t("Trial {number} leads without a tie and wins.", number=result.leader)
        names = ", ".join(map(str, tied))
        sentence = "Trial {leader} leads, tied with {tied}. Of tied trials the smallest network wins: trial {winner}."
        return t(sentence, leader=result.leader, tied=names, winner=result.winner)

    def contenders(self) -> Table:
        """Return a table with one row per trial: results in the search and on each split."""
        result, t = self._decided, self.t
        head = [
            t("trial"),
            t("weights"),
            t("in the search"),
            t("in the run-off"),
            t("95 % interval"),
            t("change, points"),
        ]
        splits = [f"{t('split')} {n}" for n in range(result.cuts)]
        rows = [self._contender(one) for one in result.contenders]
        strong = {i for i, one in enumerate(result.contenders) if one.trial == self.winner}
        return Table([*head, *splits], rows, frozenset(strong), numeric_from=0)

    def duels(self) -> Table | None:
        """Return a table that compares the leader with each other trial; None if there is no other."""
        result, t = self._decided, self.t
        if not result.duels:
            return None
        head = [
            t("trial"),
            t("behind the leader, points"),
            t("standard error"),
            t("95 % interval"),
            "t",
            "p",
            t("p (Holm)"),
            t("tied"),
        ]
        splits = [f"{t('split')} {n}" for n in range(result.cuts)]
        return Table([*head, *splits], [self._duel(one) for one in result.duels], numeric_from=0)

    def unfinished(self) -> list[str]:
        """Return a line for each trial that did not complete its trainings, with the reason."""
        return [
            Markup("{}: {}").format(self.t("trial {number}", number=number), self.t.recorded(why))
            for number, why in sorted(self._decided.lost.items())
        ]

    def drawing(self) -> SvgPlot:
        """Draw each trial's accuracies, their interval, and the accuracy in the search."""
        shown = self._decided.contenders
        values = [x for one in shown for x in (*one.accuracies, one.low, one.high, one.searched)]
        y = categories(self.t("trial"), [str(one.trial) for one in reversed(shown)])
        x = linear(self.t, self.t("validation accuracy"), *padded(values), percent=True)
        plot = SvgPlot(self.t("Run-off"), x, y, height=80 + 36 * len(shown))
        for place, one in enumerate(reversed(shown)):
            plot.line([one.low, one.high], [place, place], "whisker")
            plot.points(one.accuracies, [place] * len(one.accuracies), "trial")
            plot.points([one.searched], [place], "trial pruned", [self.t("in the search")])
            plot.points([one.accuracy], [place], "trial winner" if one.trial == self.winner else "average")
        return plot

    @property
    def _decided(self) -> Verdict:
        return cast("Verdict", self.result)  # the template shows tables of a decided run-off only

    def _contender(self, one: Contender) -> list[str]:
        t = self.t
        weights = "–" if one.weights is None else t.number(one.weights)
        means = [t.percent(one.searched), t.percent(one.accuracy), t.interval((one.low, one.high)), t.points(-one.drop)]
        return [str(one.trial), weights, *means, *map(t.percent, one.accuracies)]

    def _duel(self, duel: Duel) -> list[str]:
        t = self.t
        interval = f"{t.points(duel.low)} … {t.points(duel.high)}"
        error = "–" if duel.error is None else t.fixed(100 * duel.error, 2)
        figures = [t.points(duel.difference), error, interval, t.fixed(duel.t, 2), t.number(duel.p, 2)]
        tied = t("yes") if duel.tied else t("no")
        splits = [self._disagreement(one) for one in duel.disagreements]
        return [str(duel.trial), *figures, t.number(duel.p_adjusted, 2), tied, *splits]

    def _disagreement(self, one: Disagreement) -> str:
        return f"{one.only_leader} : {one.only_other}, p {self.t.number(one.mid, 2)}"
