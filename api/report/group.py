"""A group's report: all experiments of a collection side by side, and then each job's own report."""

from collections.abc import Sequence
from dataclasses import dataclass

from api.report.axes import categories, linear, padded
from api.report.facts import Facts, facts_of
from api.report.figures import Figure
from api.report.page import Page, rendered
from api.report.svg import Plot
from api.report.tables import Table, sizes_of
from api.report.winner import answers_of
from api.report.wording import Wording
from ml.errors import UnknownName
from ml.intervals import wilson
from ml.presets import collection
from worker.db import Database
from worker.groups import find_group, members
from worker.store import Store
from worker.tables import JobGroup


def group_report(database: Database, store: Store, group_id: str, wording: Wording) -> str:
    """The whole report as HTML; each job as it was at one instant."""
    with database.reading() as session:
        group = find_group(session, group_id)
        jobs = [(name, job.id) for name, job in members(session, group)]
    pages = []
    for name, job_id in jobs:
        facts = facts_of(database, job_id)
        pages.append(Page(facts, answers_of(facts, store), wording, prefix=f"{name}-"))
    return rendered("group.html.j2", group=GroupPage(group, [name for name, _ in jobs], pages, wording), t=wording)


@dataclass(frozen=True)
class Part:
    """One experiment of the report."""

    number: int  # from 1, as it is called in the figure
    name: str
    title: str
    page: Page

    @property
    def reached(self) -> float | None:
        """The winner's accuracy on validation images."""
        return self.page.winner.val_accuracy if self.page.winner else None


class GroupPage:
    """A group in one language."""

    def __init__(self, group: JobGroup, names: Sequence[str], pages: Sequence[Page], wording: Wording) -> None:
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
            (t("scale"), t("{share} of images, trials and epochs", share=t.percent(self.group.scale, 0))),
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
        shown = [part for part in reversed(self.parts) if part.reached is not None]
        if not shown:
            return None
        tested = [_tested(part.page.facts) for part in shown]
        reached = [part.reached for part in shown if part.reached is not None]
        values = [*reached, *(bound for each in tested if each for bound in each)]
        y = categories(self.t("experiment"), [str(part.number) for part in shown])
        x = linear(self.t, self.t("accuracy"), *padded(values), percent=True)
        plot = Plot(self.t("The experiments side by side"), x, y, height=80 + 28 * len(shown))
        for place, (part, one) in enumerate(zip(shown, tested, strict=True)):
            if one:
                plot.line([one[0], one[2]], [place, place], "whisker")
                plot.points([one[1]], [place], "average", [part.title])
            plot.points([part.reached or 0.0], [place], "trial pruned", [part.title])
        return Figure(
            plot,
            self.t("Filled: the winner on test images, with its 95 % interval; hollow: the same on validation images."),
        )

    def _best(self) -> Part | None:
        found = [part for part in self.parts if part.reached is not None]
        return max(found, key=lambda part: part.reached or 0.0, default=None)

    def _row(self, part: Part) -> list[str]:
        t, facts, winner = self.t, part.page.facts, part.page.winner
        tested = _tested(facts)
        return [
            str(part.number),
            part.title,
            facts.job.model,
            t(facts.job.state),
            t.number(len(facts.trials)),
            t.percent(part.reached),
            t.percent(tested[1]) if tested else "–",
            t.interval((tested[0], tested[2])) if tested else "–",
            t.number(winner.weights if winner else None),
            t.duration(facts.job.active_seconds),
        ]


def _tested(facts: Facts) -> tuple[float, float, float] | None:
    """The winner's accuracy on test images between the bounds of its interval; None where they were not opened."""
    if facts.version is None or facts.version.test_accuracy is None:
        return None
    share, n = facts.version.test_accuracy, sizes_of(facts)[2]
    low, high = wilson(round(share * n), n)
    return low, share, high


def _titles(name: str) -> dict[str, str]:
    """The titles of a collection's experiments by name, its own by ""; none where Chiffre no longer brings it."""
    try:
        found = collection(name)
    except UnknownName:
        return {}
    return {"": found.title, **{experiment.name: experiment.title for experiment in found.experiments}}
