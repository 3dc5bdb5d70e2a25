"""A report's page: the values and tables that the template shows."""

import json
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from api.report.analysis import AnalysisSection
from api.report.axes import linear
from api.report.facts import Facts
from api.report.figures import Figures
from api.report.run_off import RunOffSection
from api.report.svg import SvgPlot
from api.report.tables import Tables, sizes_of
from api.report.winner import Answers
from api.report.wording import Wording
from ml.analysis.findings import Analysis
from ml.statistics.intervals import wilson
from worker.database.tables import Trial


def page_of(facts: Facts, answers: Answers | None, found: Analysis | None, wording: Wording) -> str:
    """Return a job's whole report as HTML."""
    return rendered("report.html.j2", page=ReportPage(facts, answers, found, wording), t=wording)


def rendered(template: str, **variables: object) -> str:
    """Render a template with its variables."""
    templates = Environment(
        loader=PackageLoader("api.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(template).render(variables)


class ReportPage:
    """A job's report in one language; the anchors of its sections begin with `prefix`."""

    def __init__(
        self, facts: Facts, answers: Answers | None, found: Analysis | None, wording: Wording, prefix: str = ""
    ) -> None:
        self.prefix = prefix
        self.facts = facts
        self.answers = answers
        self.t = wording
        self.winner = facts.trial(facts.version.trial) if facts.version else next(iter(facts.best), None)
        self.figures = Figures(facts, self.winner, wording) if facts.with_value else None
        self.tables = Tables(facts, answers, self.winner, wording)
        self.analysis = AnalysisSection(found, wording) if found else None
        self.run_off = RunOffSection(facts, wording) if facts.reruns else None

    def summary(self) -> list[tuple[str, str]]:
        """Return the rows of the summary: name and value."""
        job, t = self.facts.job, self.t
        reason = f" ({t(job.stop_reason)})" if job.stop_reason else ""
        rows = [(t("state"), t(job.state) + reason)]
        if job.error:
            rows.append((t("error"), t.recorded(job.error)))
        if self.winner is not None:
            rows.append((self.winners_name, t("trial {number}", number=self.winner.number)))
            rows.append((t("validation accuracy"), self.validated(self.winner)))
        if self.facts.version is not None:
            rows.append((t("test accuracy"), self.tested()))
            rows.append((t("test set"), self.opened))
        started = t("{time}, started {start}", time=t.duration(job.active_seconds), start=t.instant(job.started_at))
        return [*rows, (t("time"), t("not started") if job.started_at is None else started)]

    @property
    def shares(self) -> str:
        """One sentence on how the time of a pack is shared by its trials."""
        if self.facts.job.rules == 1:
            return self.t("Seconds are equal shares of a pack's time for all its trials, by rules 1.")
        return self.t("Seconds are a trial's share of its pack's time, by what a step of the trial takes alone.")

    @property
    def winners_name(self) -> str:
        """The label of the report's main trial: it is a winner only once it is published."""
        return self.t("winner" if self.facts.version else "best so far")

    @property
    def opened(self) -> str:
        """The count of uses of the test set, in words."""
        opening = self.facts.opening
        if opening is None:
            return "–"
        if opening == 1:
            return self.t("first use of this test set")
        return self.t("opening {n} of this test set", n=self.t.number(opening))

    def contents(self) -> list[tuple[str, str]]:
        """Return the sections of this report: anchor and title."""
        found = {
            "experiment": ("The experiment", True),
            "search": ("The search", self.figures),
            "analysis": ("Hyper-parameter analysis", self.analysis),
            "cost": ("Cost", self.figures),
            "run-off": ("Run-off", self.run_off),
            "winner": ("The winner" if self.facts.version else "The best so far", self.winner),
            "failures": ("Trials without a result", self.facts.unfinished),
            "provenance": ("Provenance", True),
        }
        return [(self.prefix + anchor, self.t(name)) for anchor, (name, there) in found.items() if there]

    @property
    def title(self) -> str:
        """The page's title."""
        job = self.facts.job
        return self.t("{model} on {dataset}", model=job.model, dataset=job.dataset)

    def validated(self, trial: Trial) -> str:
        """Return a trial's accuracy on validation images, without an interval because they were used for selection."""
        share, n = self.t.percent(trial.val_accuracy), self.t.number(sizes_of(self.facts)[1])
        return self.t("{share} (n = {n}; used for selection, so optimistic; no interval given)", share=share, n=n)

    def tested(self) -> str:
        """Return the winner's accuracy on test images with its interval."""
        return self._with_interval(self.test_share)

    @property
    def test_share(self) -> "Share | None":
        """The winner's accuracy on test images; None if they were not opened."""
        version = self.facts.version
        return Share.of(version.test_accuracy, sizes_of(self.facts)[2]) if version else None

    def reliability(self) -> SvgPlot | None:
        """Draw accuracy against confidence. Points on the diagonal are perfectly calibrated."""
        if self.answers is None:
            return None
        x = linear(self.t, self.t("confidence"), 0, 1, percent=True)
        y = linear(self.t, self.t("accuracy"), 0, 1, percent=True)
        plot = SvgPlot(self.t("Reliability diagram"), x, y, width=420, height=320)
        for one in self.answers.bins:
            if one.images:
                name = f"{self.t.number(one.images)} {self.t('images')}: {self.t.percent(one.accuracy)}"
                plot.bar(one.low, one.high, one.accuracy, "bin", name)
        plot.line([0, 1], [0, 1], "diagonal")
        filled = [one for one in self.answers.bins if one.images]
        plot.points([one.confidence for one in filled], [one.accuracy for one in filled], "mean")
        return plot

    def shade(self, row: list[int], column: int, correct: bool) -> str:
        """Return the CSS background of a cell of the confusion matrix.

        Opacity grows with the square root of the cell's share of its row, so that even a few mistakes are visible.
        """
        share = (row[column] / (sum(row) or 1)) ** 0.5
        colour = "31, 119, 80" if correct else "196, 57, 30"
        return f"background: rgba({colour}, {share * 0.75:.2f})"

    def spec_json(self) -> str:
        """Return the submitted specification as JSON."""
        return json.dumps(self.facts.job.spec, indent=1, ensure_ascii=False)

    def _with_interval(self, share: "Share | None") -> str:
        if share is None:
            return "–"
        sentence = "{share} (95 % interval {bounds}, n = {n})"
        bounds = self.t.interval(share.bounds)
        return self.t(sentence, share=self.t.percent(share.value), bounds=bounds, n=self.t.number(share.n))


@dataclass(frozen=True)
class Share:
    """A share of n images and its 95 % interval."""

    value: float  # 0..1
    n: int
    bounds: tuple[float, float]  # of the interval, 0..1

    @classmethod
    def of(cls, value: float | None, n: int) -> "Share | None":
        """Return a share with Wilson's interval; None if the value is None."""
        return None if value is None else cls(value, n, wilson(round(value * n), n))
