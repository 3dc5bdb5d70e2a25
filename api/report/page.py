"""A report's page: what the template asks for."""

import json
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined

from api.report.axes import linear
from api.report.facts import Facts
from api.report.figures import Figures
from api.report.matters import Matters
from api.report.run_off import RunOffSection
from api.report.svg import SvgPlot
from api.report.tables import Tables, sizes_of
from api.report.winner import Answers
from api.report.wording import Wording
from ml.analysis.findings import Analysis
from ml.statistics.intervals import wilson
from worker.database.tables import Trial


def page_of(facts: Facts, answers: Answers | None, found: Analysis | None, wording: Wording) -> str:
    """A job's whole report as HTML."""
    return rendered("report.html.j2", page=ReportPage(facts, answers, found, wording), t=wording)


def rendered(template: str, **named: object) -> str:
    """A template, filled with what it names."""
    templates = Environment(
        loader=PackageLoader("api.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return templates.get_template(template).render(named)


class ReportPage:
    """One job in one language; the anchors of its sections begin with `prefix`."""

    def __init__(
        self, facts: Facts, answers: Answers | None, found: Analysis | None, wording: Wording, prefix: str = ""
    ) -> None:
        self.prefix = prefix
        self.facts = facts
        self.answers = answers
        self.t = wording
        self.winner = facts.trial(facts.version.trial) if facts.version else next(iter(facts.best), None)
        self.figures = Figures(facts, self.winner, wording) if facts.judged else None
        self.tables = Tables(facts, answers, self.winner, wording)
        self.matters = Matters(found, wording) if found else None
        self.run_off = RunOffSection(facts, wording) if facts.reruns else None

    def summary(self) -> list[tuple[str, str]]:
        """What a reader wants to know first."""
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
            rows.append((t("test images"), t("opening {n}", n=self.facts.opening)))
        begun = t("{time} from {start} on", time=t.duration(job.active_seconds), start=t.instant(job.started_at))
        worked = t("not begun") if job.started_at is None else begun
        return [*rows, (t("time"), worked)]

    @property
    def winners_name(self) -> str:
        """What the trial that the report is about is: nothing has won before it is published."""
        return self.t("winner" if self.facts.version else "best so far")

    def contents(self) -> list[tuple[str, str]]:
        """The sections that there are."""
        found = {
            "experiment": ("The experiment", True),
            "search": ("The search", self.figures),
            "matters": ("What matters", self.matters),
            "cost": ("What it costs", self.figures),
            "run-off": ("Run-off", self.run_off),
            "winner": ("The winner" if self.facts.version else "The best so far", self.winner),
            "failures": ("What failed", self.facts.unfinished),
            "provenance": ("Where it comes from", True),
        }
        return [(self.prefix + anchor, self.t(name)) for anchor, (name, there) in found.items() if there]

    @property
    def title(self) -> str:
        """The page's title."""
        job = self.facts.job
        return self.t("{model} on {dataset}", model=job.model, dataset=job.dataset)

    def validated(self, trial: Trial) -> str:
        """A trial's accuracy on validation images: without an interval, as it was chosen by them."""
        share, n = self.t.percent(trial.val_accuracy), self.t.number(sizes_of(self.facts)[1])
        return self.t("{share} (n = {n}, which chose it: too good by nature, so without an interval)", share=share, n=n)

    def tested(self) -> str:
        """The winner's accuracy on test images with its interval."""
        return self._said(self.test_share)

    @property
    def test_share(self) -> "Share | None":
        """The winner's accuracy on test images; None where they were not opened."""
        version = self.facts.version
        return Share.of(version.test_accuracy, sizes_of(self.facts)[2]) if version else None

    def reliability(self) -> SvgPlot | None:
        """Accuracy against confidence; the shorter the distance to the diagonal, the better."""
        if self.answers is None:
            return None
        x = linear(self.t, self.t("confidence"), 0, 1, percent=True)
        y = linear(self.t, self.t("share that is right"), 0, 1, percent=True)
        plot = SvgPlot(self.t("Reliability"), x, y, width=420, height=320)
        for one in self.answers.bins:
            if one.images:
                name = f"{self.t.number(one.images)} {self.t('images')}: {self.t.percent(one.accuracy)}"
                plot.bar(one.low, one.high, one.accuracy, "bin", name)
        plot.line([0, 1], [0, 1], "diagonal")
        filled = [one for one in self.answers.bins if one.images]
        plot.points([one.confidence for one in filled], [one.accuracy for one in filled], "mean")
        return plot

    def shade(self, row: list[int], column: int, right: bool) -> str:
        """How dark a cell of the confusion matrix is: the root of its share, so that a few mistakes are seen."""
        share = (row[column] / (sum(row) or 1)) ** 0.5
        colour = "31, 119, 80" if right else "196, 57, 30"
        return f"background: rgba({colour}, {share * 0.75:.2f})"

    def spec_json(self) -> str:
        """What was posted, to be posted again."""
        return json.dumps(self.facts.job.spec, indent=1, ensure_ascii=False)

    def _said(self, share: "Share | None") -> str:
        if share is None:
            return "–"
        sentence = "{share} (95 % interval {bounds}, n = {n})"
        bounds = self.t.interval(share.bounds)
        return self.t(sentence, share=self.t.percent(share.value), bounds=bounds, n=self.t.number(share.n))


@dataclass(frozen=True)
class Share:
    """A share of so many images (0..1), between the bounds of its 95 % interval."""

    value: float
    n: int
    bounds: tuple[float, float]

    @classmethod
    def of(cls, value: float | None, n: int) -> "Share | None":
        """With Wilson's interval; None of nothing."""
        return None if value is None else cls(value, n, wilson(round(value * n), n))
