"""A group's report: all experiments of a collection side by side, and then each job's own report."""

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
    """The whole report as HTML; each job as it was at one instant."""
    with database.reading() as session:
        group = find_group(session, group_id)
        jobs = [(name, job.id) for name, job in members(session, group)]
    pages = []
    for name, job_id in jobs:
        facts = facts_of(database, job_id)
        pages.append(ReportPage(facts, answers_of(facts, store, find), facts.analysis(), wording, prefix=f"{name}-"))
    return rendered("group.html.j2", group=GroupPage(group, [name for name, _ in jobs], pages, wording), t=wording)


@dataclass(frozen=True)
class Part:
    """One experiment of the report."""

    number: int  # from 1, as it is called in the figure
    name: str
    title: str
    page: ReportPage

    @property
    def reached(self) -> float | None:
        """The winner's accuracy on validation images."""
        return self.page.winner.val_accuracy if self.page.winner else None


class GroupPage:
    """A group in one language."""

    def __init__(self, group: JobGroup, names: Sequence[str], pages: Sequence[ReportPage], wording: Wording) -> None:
        self.group = group
        self.t = wording
        titles = _titles(group.collection)
        self.title = wording(titles[""]) if "" in titles else group.collection
        self.parts = [
            Part(number, name, wording(titles[name]) if name in titles else name, page)
            for number, (name, page) in enumerate(zip(names, pages, strict=True), 1)
        ]

    def summary(self) -> list[tuple[str, str]]:
        """What a reader wants to know first."""
        t, jobs = self.t, [part.page.facts.job for part in self.parts]
        rows = [
            (t("experiments"), t.number(len(jobs))),
            (t("scale"), t("{share} of images, trials and epochs", share=f"{t.number(100 * self.group.scale)}{WIDE}%")),
            (t("seed"), str(self.group.seed)),
            (t("posted"), t.instant(self.group.created_at)),
            (t("trials"), t.number(sum(len(part.page.facts.trials) for part in self.parts))),
            (t("time, summed over jobs"), t.duration(sum(job.active_seconds for job in jobs))),
        ]
        best = self._best()
        return rows if best is None else [*rows, (t("the most accurate on validation images"), best.title)]

    def overview(self) -> Table:
        """A row an experiment; the most accurate on validation images stands out."""
        t = self.t
        head = ["", t("experiment"), t("network"), t("state"), t("trials"), t("validation accuracy")]
        head += [t("test accuracy"), t("95 % interval"), t("weights"), t("time")]
        best = self._best()
        strong = {place for place, part in enumerate(self.parts) if part is best}
        return Table(head, [self._row(part) for part in self.parts], frozenset(strong), numeric_from=4)

    def drawing(self) -> Figure | None:
        """What the winner of each experiment reached on validation and on test images; None where none has one."""
        shown = [(part, part.reached) for part in reversed(self.parts) if part.reached is not None]
        if not shown:
            return None
        shares = [part.page.test_share for part, _ in shown]
        values = [*(reached for _, reached in shown), *(bound for share in shares if share for bound in share.bounds)]
        y = categories(self.t("experiment"), [str(part.number) for part, _ in shown])
        x = linear(self.t, self.t("accuracy"), *padded(values), percent=True)
        plot = SvgPlot(self.t("The experiments side by side"), x, y, height=80 + 28 * len(shown))
        for place, ((part, reached), share) in enumerate(zip(shown, shares, strict=True)):
            if share:
                plot.line(list(share.bounds), [place, place], "whisker")
                plot.points([share.value], [place], "average", [part.title])
            plot.points([reached], [place], "trial pruned", [part.title])
        return Figure(
            plot,
            self.t("Filled: the winner on test images, with its 95 % interval; hollow: the same on validation images."),
        )

    def _best(self) -> Part | None:
        found = [(part.reached, part) for part in self.parts if part.reached is not None]
        return max(found, key=lambda pair: pair[0], default=(0.0, None))[1]

    def _row(self, part: Part) -> list[str]:
        t, facts, winner = self.t, part.page.facts, part.page.winner
        tested = part.page.test_share
        return [
            str(part.number),
            part.title,
            facts.job.model,
            t(facts.job.state),
            t.number(len(facts.trials)),
            t.percent(part.reached),
            t.percent(tested.value) if tested else "–",
            t.interval(tested.bounds) if tested else "–",
            t.number(winner.weights if winner else None),
            t.duration(facts.job.active_seconds),
        ]


def _titles(name: str) -> dict[str, str]:
    """The titles of a collection's experiments by name, its own by ""; none where Chiffre no longer brings it."""
    try:
        found = collection(name)
    except UnknownName:
        return {}
    return {"": found.title, **{experiment.name: experiment.title for experiment in found.experiments}}
