"""A report's section about the hyper-parameters: importances, effects, interactions and correlations."""

from collections.abc import Sequence

from api.report.tables import Row, Table
from api.report.wording import WIDE, Wording
from ml.analysis.findings import Analysis, Effect, Group, Interaction, Matrix
from ml.analysis.observations import OUTCOMES

PAIRS = 10  # rows of the table of interactions
SIGNIFICANT = 0.05  # an interaction with a smaller p after Holm's correction is printed in bold
OUTCOME_NAMES = dict(zip(OUTCOMES, ("validation loss", "validation accuracy", "seconds", "epochs run"), strict=True))
METHODS = {"ped_anova": "PED-ANOVA", "fanova": "fANOVA"}


class AnalysisSection:
    """The tables of a job's analysis in one language."""

    def __init__(self, found: Analysis, wording: Wording) -> None:
        self.found = found
        self.t = wording

    def effects(self) -> Table | None:
        """Return accuracy and time of trials grouped by similar values; None if no parameter has two groups."""
        rows = [row for effect in self.found.effects for row in self._effect(effect)]
        if not rows:
            return None
        head = [self.t("parameter"), self.t("values"), self.t("trials")]
        head += [self.t(name) for name in ("validation accuracy", "seconds")]
        return Table(head, rows, numeric_from=2)

    def correlations(self) -> list[tuple[str, Table]]:
        """Return both correlation matrices by name; each coefficient has its p-value, if there is one."""
        found = self.found.correlations
        if len(found.variables) < 2:
            return []
        kinds = (("Pearson", found.pearson, found.pearson_p), ("Spearman", found.spearman, found.spearman_p))
        return [(name, self._matrix(found.variables, values, p_values)) for name, values, p_values in kinds]

    def observations(self) -> Table:
        """Return the number of independent observations of each pair: trials, or packs if they share a value."""
        found = self.found.correlations
        return self._square(found.variables, [[self.t.number(n) for n in row] for row in found.n_effective])

    def importances(self) -> Table | None:
        """Return each parameter's importance by each method; None if no method has a result."""
        methods = [one for one in self.found.importances if one.values is not None]
        if not methods:
            return None
        names = sorted({name for one in methods for name in one.values or {}})
        head = [self.t("parameter"), *(f"{METHODS[one.method]} ({self.t.number(one.trials)})" for one in methods)]
        rows = [[name, *(self.t.percent((one.values or {}).get(name), 1) for one in methods)] for name in names]
        return Table(head, rows)

    @property
    def dependence(self) -> str | None:
        """The reason why there are no p-values; None if there are."""
        reason = self.found.correlations.p_reason
        return None if reason is None else self.t(reason)

    def not_rated(self) -> list[tuple[str, str]]:
        """Return the methods without importances: name and reason."""
        return [
            (METHODS[one.method], self.t.recorded(one.reason))
            for one in self.found.importances
            if one.values is None and one.reason is not None
        ]

    @property
    def per_pack(self) -> str:
        """The parameters that all trials of a pack share, as a text; empty if there are none."""
        names = sorted({name for one in self.found.importances for name in one.undetermined})
        return ", ".join(names)

    @property
    def ranked(self) -> bool:
        """True if importances are of ranks among trials of the same time."""
        return any(one.ranked for one in self.found.importances)

    def interactions(self) -> Table | None:
        """Return the tested pairs of parameters, smallest p or largest share first; None if none could be tested."""
        tested = [one for one in self.found.interactions if one.f is not None][:PAIRS]
        if not tested:
            return None
        names = ("parameter", "other parameter", "outcome", "trials", "share of the variance", "F", "p", "p (Holm)")
        strong = {i for i, one in enumerate(tested) if one.p_holm is not None and one.p_holm < SIGNIFICANT}
        rows = [self._interaction(one) for one in tested]
        return Table([self.t(name) for name in names], rows, frozenset(strong), numeric_from=3)

    def _effect(self, effect: Effect) -> list[Row]:
        if len(effect.groups) < 2:
            return []
        return [[effect.parameter, *self._group(group)] for group in effect.groups]

    def _group(self, group: Group) -> Row:
        accuracy, seconds = self.t.percent(group.val_accuracy), self.t.number(group.seconds, 3)
        if group.val_accuracy_sd is not None:
            accuracy += f" ± {self.t.fixed(100 * group.val_accuracy_sd, 2)}"
        if group.seconds_sd is not None:
            seconds += f" ± {self.t.number(group.seconds_sd, 2)}"
        return [self.t.range(group.label), self.t.number(group.trials), accuracy, seconds]

    def _matrix(self, names: Sequence[str], values: Matrix, p_values: Matrix) -> Table:
        size = range(len(names))
        cells = [["" if i == j else self._coefficient(values[i][j], p_values[i][j]) for j in size] for i in size]
        return self._square(names, cells)

    def _square(self, names: Sequence[str], cells: Sequence[Row]) -> Table:
        """Return a table whose rows and columns are the same variables."""
        labels = [self.t(OUTCOME_NAMES[name]) if name in OUTCOME_NAMES else name for name in names]
        return Table(["", *labels], [[label, *row] for label, row in zip(labels, cells, strict=True)])

    def _coefficient(self, value: float | None, p: float | None) -> str:
        if value is None:
            return "–"
        rounded = round(value, 2) or 0.0  # never −0
        chance = "" if p is None else f" (p{WIDE}{self.t.number(p, 2)})"
        return self.t.fixed(rounded, 2).replace("-", "−") + chance

    def _interaction(self, one: Interaction) -> Row:
        df = "" if one.f_df is None else f" ({one.f_df[0]}, {one.f_df[1]})"
        return [
            one.one,
            one.other,
            self.t(OUTCOME_NAMES[one.outcome]),
            self.t.number(one.trials),
            self.t.percent(one.share, 1),
            self.t.number(one.f, 3) + df,
            self.t.number(one.p, 2),
            self.t.number(one.p_holm, 2),
        ]
