"""A group's report: all experiments of a collection side by side, then each job's own report."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.report.axes import categories, linear, padded
from api.report.facts import facts_of
from api.report.figures import Figure
from api.report.page import ReportPage, rendered
from api.report.svg import SvgPlot
from api.report.tables import Table
from api.report.winner import answers_of
from api.report.wording import WIDE, Wording
from ml.datasets import FindDataset
from ml.errors import UnknownName
from ml.presets import collection
from worker.artifacts.store import Store
from worker.database.engine import Database
from worker.database.tables import JobGroup
from worker.ledger.groups import find_group, members


def group_report(database: Database, store: Store, find: FindDataset, group_id: str, wording: Wording) -> str:
    """Return a group's report as HTML. Each job is read at one instant."""
    with database.reading() as session:
        group = find_group(session, group_id)
        jobs = [(name, job.id) for name, job in members(session, group)]
    pages = []
    for name, job_id in jobs:
        facts = facts_of(database, job_id)
        pages.append(ReportPage(facts, answers_of(facts, store, find), facts.analysis(), wording, prefix=f"{name}-"))
    return rendered("group.html.j2", group=GroupPage(group, [name for name, _ in jobs], pages, wording), t=wording)


@dataclass(frozen=True)
class ExperimentSection:
    """An experiment of the report."""

    number: int  # from 1; its label in the figure
    name: str
    title: str
    page: ReportPage

    @property
    def val_accuracy(self) -> float | None:
        """The winner's accuracy on validation images."""
        return self.page.winner.val_accuracy if self.page.winner else None


class GroupPage:
    """A group's report in one language."""

    def __init__(self, group: JobGroup, names: Sequence[str], pages: Sequence[ReportPage], wording: Wording) -> None:
        self.group = group
        self.t = wording
        titles = _titles(group.collection)
        self.title = wording(titles[""]) if "" in titles else group.collection
        self.sections = [
            ExperimentSection(number, name, wording(titles[name]) if name in titles else name, page)
            for number, (name, page) in enumerate(zip(names, pages, strict=True), 1)
        ]

    def summary(self) -> list[tuple[str, str]]:
        """Return the rows of the summary: name and value."""
        t, jobs = self.t, [section.page.facts.job for section in self.sections]
        rows = [
            (t("experiments"), t.number(len(jobs))),
            (t("scale"), t("{share} of images, trials and epochs", share=f"{t.number(100 * self.group.scale)}{WIDE}%")),
            (t("seed"), str(self.group.seed)),
            (t("submitted"), t.instant(self.group.created_at)),
            (t("trials"), t.number(sum(len(section.page.facts.trials) for section in self.sections))),
            (t("time, summed over jobs"), t.duration(sum(job.active_seconds for job in jobs))),
        ]
        best = self._best()
        return rows if best is None else [*rows, (t("most accurate on validation images"), best.title)]

    def overview(self) -> Table:
        """Return a table with one row per experiment; the most accurate on validation images is in bold."""
        t = self.t
        head = ["", t("experiment"), t("network"), t("state"), t("trials"), t("validation accuracy")]
        head += [t("test accuracy"), t("95 % interval"), t("weights"), t("time")]
        best = self._best()
        strong = {place for place, section in enumerate(self.sections) if section is best}
        return Table(head, [self._row(section) for section in self.sections], frozenset(strong), numeric_from=4)

    def drawing(self) -> Figure | None:
        """Draw validation and test accuracy of each experiment's winner; None if there is no winner yet."""
        shown = [(one, one.val_accuracy) for one in reversed(self.sections) if one.val_accuracy is not None]
        if not shown:
            return None
        shares = [section.page.test_share for section, _ in shown]
        values = [*(accuracy for _, accuracy in shown), *(bound for share in shares if share for bound in share.bounds)]
        y = categories(self.t("experiment"), [str(section.number) for section, _ in shown])
        x = linear(self.t, self.t("accuracy"), *padded(values), percent=True)
        plot = SvgPlot(self.t("The experiments side by side"), x, y, height=80 + 28 * len(shown))
        for place, ((section, accuracy), share) in enumerate(zip(shown, shares, strict=True)):
            if share:
                plot.line(list(share.bounds), [place, place], "whisker")
                plot.points([share.value], [place], "average", [section.title])
            plot.points([accuracy], [place], "trial pruned", [section.title])
        return Figure(
            plot,
            self.t("Filled: test accuracy of the winner, with its 95 % interval; hollow: its validation accuracy."),
        )

    def _best(self) -> ExperimentSection | None:
        found = [(one.val_accuracy, one) for one in self.sections if one.val_accuracy is not None]
        return max(found, key=lambda pair: pair[0], default=(0.0, None))[1]

    def _row(self, section: ExperimentSection) -> list[str]:
        t, facts, winner = self.t, section.page.facts, section.page.winner
        share = section.page.test_share
        return [
            str(section.number),
            section.title,
            facts.job.model,
            t(facts.job.state),
            t.number(len(facts.trials)),
            t.percent(section.val_accuracy),
            t.percent(share.value) if share else "–",
            t.interval(share.bounds) if share else "–",
            t.number(winner.weights if winner else None),
            t.duration(facts.job.active_seconds),
        ]


def _titles(name: str) -> dict[str, str]:
    """Return the titles of a collection's experiments by name, and its own under "".

    The result is empty if this release has no such collection.
    """
    try:
        found = collection(name)
    except UnknownName:
        return {}
    return {"": found.title, **{experiment.name: experiment.title for experiment in found.experiments}}
