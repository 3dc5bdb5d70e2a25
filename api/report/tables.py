"""The tables of a report."""

from dataclasses import dataclass
from typing import Any

from api.report.costs import costs, front_of
from api.report.facts import Facts
from api.report.winner import Answers
from api.report.wording import WIDE, Wording
from ml.datasets import limited, split_sizes
from ml.prediction.calibration import Calibration
from worker.database.tables import ModelVersion, Trial

BEST, UNFINISHED = 15, 20  # rows of the tables of the best trials, and of trials without a result

Row = list[str]


@dataclass(frozen=True)
class Table:
    """A table: its heading cells and its rows."""

    head: Row
    rows: list[Row]
    strong: frozenset[int] = frozenset()  # indices of the rows in bold
    numeric_from: int = 1  # the first column that holds numbers


class Tables:
    """The tables of a job in one language."""

    def __init__(self, facts: Facts, answers: Answers | None, winner: Trial | None, wording: Wording) -> None:
        self.facts = facts
        self.answers = answers
        self.winner = winner
        self.t = wording

    def specification(self) -> Table:
        """Return the specification, one row per field."""
        spec = self.facts.submitted.model_dump(mode="json", exclude={"search_space", "params"}, exclude_none=True)
        rows = [[name, self.t.value(value)] for name, value in spec.items()]
        return Table([self.t("field"), self.t("value")], rows, numeric_from=2)

    def space(self) -> Table:
        """Return the search space, one row per parameter."""
        space = self.facts.spec.search_space
        rows = [[name, self._dimension(dimension.model_dump(mode="json"))] for name, dimension in space.items()]
        return Table([self.t("parameter"), self.t("values")], rows, numeric_from=2)

    def states(self) -> Table:
        """Return the number of trials by state."""
        counts: dict[str, int] = {}
        for trial in self.facts.trials:
            counts[trial.state] = counts.get(trial.state, 0) + 1
        rows = [[self.t(state), self.t.number(count)] for state, count in sorted(counts.items())]
        return Table([self.t("state"), self.t("trials")], rows)

    def cost(self) -> Table:
        """Return times, epochs and computation of the job."""
        job, trials = self.facts.job, self.facts.trials
        training = sum(trial.seconds for trial in trials)
        rows = [
            [self.t("active time (at least one trial running)"), self.t.duration(job.active_seconds)],
            [self.t("training and evaluation, summed over trials"), self.t.duration(training)],
            [self.t("epochs, summed over trials"), self.t.number(round(sum(trial.epochs_run for trial in trials), 1))],
            [self.t("computation, estimated at three forward passes per image"), self._computation()],
            [self.t("trials trained together"), self.t.number(job.lanes)],
        ]
        if self.facts.reruns:
            seconds = sum(rerun.seconds for rerun in self.facts.reruns)
            rows.append([self.t("training and evaluation in the run-off"), self.t.duration(seconds)])
        return Table([self.t("quantity"), self.t("value")], rows)

    def best(self) -> Table:
        """Return the best trials; the winner is in bold."""
        names = self._varied()
        head = [self.t("trial"), *names, self.t("epochs"), self.t("validation accuracy"), self.t("validation loss")]
        head += [self.t("weights"), self.t("seconds")]
        shown = self.facts.best[:BEST]
        strong = {i for i, trial in enumerate(shown) if self.winner and trial.number == self.winner.number}
        return Table(head, [self._row(trial, names) for trial in shown], frozenset(strong), numeric_from=0)

    def fronts(self) -> list[tuple[str, Table]]:
        """Return the Pareto fronts by name of the cost."""
        found = []
        for name, cost_of in costs(self.facts).items():
            rows = [
                [self.t.number(trial.number), self._value(trial), self.t.number(cost_of(trial))]
                for trial in front_of(self.facts.job, self.facts.with_value, cost_of)
            ]
            head = [self.t("trial"), self.t("validation accuracy" if self.facts.job.maximize else "validation loss")]
            if rows:
                found.append((self.t(name), Table([*head, self.t(name)], rows, numeric_from=0)))
        return found

    def unfinished(self) -> Table | None:
        """Return the trials without a result, and the reasons; None if there are none."""
        shown = self.facts.unfinished[:UNFINISHED]
        if not shown:
            return None
        rows = [[str(trial.number), self.t(trial.state), self._reason(trial), self._params(trial)] for trial in shown]
        head = [self.t("trial"), self.t("state"), self.t("reason"), self.t("parameters")]
        return Table(head, rows, numeric_from=4)

    def params(self) -> Table | None:
        """Return the winner's hyper-parameters; None if there is no winner."""
        if self.winner is None:
            return None
        rows = [[name, self.t.value(value)] for name, value in (self.winner.params or {}).items()]
        return Table([self.t("parameter"), self.t("value")], rows)

    def classes(self) -> Table | None:
        """Return the winner's precision and recall for each class; None if its answers are unknown."""
        if self.answers is None:
            return None
        rows = [
            [
                name,
                self.t.number(sum(row)),
                self.t.percent(self.answers.precision(i)),
                self.t.percent(self.answers.recall(i)),
            ]
            for i, (name, row) in enumerate(zip(self.answers.classes, self.answers.confusion, strict=True))
        ]
        return Table([self.t("class"), self.t("images"), self.t("precision"), self.t("recall")], rows)

    def calibration(self) -> Table | None:
        """Return temperature, calibration errors and abstentions; None if the winner is not calibrated."""
        version = self.facts.version
        if version is None or not version.calibration:
            return None
        fitted = Calibration(**version.calibration)
        rows = [
            [self.t("temperature"), self.t.number(fitted.temperature), ""],
            [
                self.t("calibration error (ECE), validation"),
                self.t.percent(fitted.ece),
                self.t.percent(fitted.ece_uncalibrated),
            ],
            [
                self.t("calibration error (ECE), test"),
                self.t.percent(fitted.test_ece),
                self.t.percent(fitted.test_ece_uncalibrated),
            ],
            [self.t("abstained, validation"), self.t.percent(fitted.abstained), ""],
            [self.t("abstained, test"), self.t.percent(fitted.test_abstained), ""],
        ]
        return Table([self.t("quantity"), self.t("calibrated"), self.t("uncalibrated")], rows)

    def provenance(self) -> Table:
        """Return the origin of the results: data, machines, files and software versions."""
        job, version, data = self.facts.job, self.facts.version, self.facts.dataset
        sizes = " / ".join(map(self.t.number, sizes_of(self.facts)))
        shape = "×".join(map(str, data.shape))
        rows = [
            [self.t("job"), job.id],
            [
                self.t("data set"),
                f"{job.dataset}, {self.t.number(data.images)} {self.t('images')}, {shape}",
            ],
            [self.t("SHA-256 of the data"), job.dataset_sha256],
            [self.t("training / validation / test images"), sizes],
            [self.t("machines"), ", ".join(self.facts.workers) or "–"],
            [self.t("rules of drawing, of sharing time and of deciding"), self._rules()],
        ]
        if version is not None:
            rows += self._of_version(version)
        return Table([self.t("item"), self.t("value")], rows, numeric_from=2)

    def history(self) -> Table:
        """Return the events of the job."""
        rows = [[self.t.instant(e.at), self.t(e.state), self.t.recorded(e.detail or "")] for e in self.facts.history]
        return Table([self.t("date and time"), self.t("state"), self.t("detail")], rows, numeric_from=3)

    def _of_version(self, version: ModelVersion) -> list[Row]:
        files, environment = self.facts.files, version.environment or {}
        versions = ", ".join(f"{name} {number}" for name, number in sorted(environment.get("versions", {}).items()))
        unknown = self.t("not recorded")
        accelerator = environment.get("accelerator") or self.t("none")
        return [
            [self.t("published as"), f"{version.model} {version.version}"],
            [self.t("SHA-256 of the weights"), files["checkpoint"].sha256],
            [self.t("SHA-256 of the ONNX graph"), files["onnx"].sha256],
            [
                self.t("processor"),
                f"{environment['processor']}, {environment['cores']} {self.t('cores')}" if environment else unknown,
            ],
            [self.t("accelerator"), accelerator if environment else unknown],
            [self.t("system"), environment.get("system", unknown)],
            [self.t("versions"), f"chiffre {version.code_version}" + (f", {versions}" if versions else "")],
            [self.t("latency of one image on one core"), self._latency(version.latency_seconds)],
        ]

    def _rules(self) -> str:
        rules = self.facts.job.rules
        return f"1 ({self.t('those of release 0.2')})" if rules == 1 else str(rules)

    def _latency(self, seconds: float | None) -> str:
        return "–" if seconds is None else f"{self.t.number(1e6 * seconds, 3)}{WIDE}µs"

    def _computation(self) -> str:
        """Estimate the job's floating-point operations; a backward pass costs about two forward passes."""
        images = sizes_of(self.facts)[0]
        total = sum(3 * (trial.flops or 0) * trial.epochs_run * images for trial in self.facts.trials)
        return f"{self.t.number(total / 1e12, 3)}{WIDE}TFLOP"

    def _reason(self, trial: Trial) -> str:
        return "–" if trial.reason is None else self.t.recorded(trial.reason)

    def _value(self, trial: Trial) -> str:
        return self.t.percent(trial.value) if self.facts.job.maximize else self.t.number(trial.value)

    def _row(self, trial: Trial, names: list[str]) -> Row:
        params = [self.t.value((trial.params or {}).get(name, "–")) for name in names]
        results = [self.t.number(trial.best_epoch), self.t.percent(trial.val_accuracy), self.t.number(trial.val_loss)]
        return [
            str(trial.number),
            *params,
            *results,
            self.t.number(trial.weights),
            self.t.number(round(trial.seconds, 1)),
        ]

    def _varied(self) -> list[str]:
        """Return the parameters of the search space in which trials differ."""
        trials = self.facts.with_value
        return [
            name
            for name in self.facts.spec.search_space
            if len({str((trial.params or {}).get(name)) for trial in trials}) > 1
        ]

    def _params(self, trial: Trial) -> str:
        params = trial.params or {}
        return ", ".join(
            f"{name} {self.t.value(params[name])}" for name in self.facts.spec.search_space if name in params
        )

    def _dimension(self, dimension: Any) -> str:
        """Return the short form of a dimension that is given as JSON."""
        if not isinstance(dimension, dict):
            return self.t.value(dimension)
        if dimension["type"] == "list":
            return f"{self._dimension(dimension['length'])} × ({self._dimension(dimension['items'])})"
        values = dimension.get("choices", dimension.get("values"))
        if values is not None:
            return self.t.value(values)
        bounds = " – ".join(self.t.number(dimension[bound]) for bound in ("low", "high"))
        step = dimension.get("step")
        scale = ["log"] if dimension["log"] else []
        steps = [f"{self.t('step')} {self.t.number(step)}"] if step not in (None, 1) else []
        return ", ".join([bounds, *scale, *steps])


def sizes_of(facts: Facts) -> tuple[int, int, int]:
    """Return the numbers of training, validation and test images."""
    official_test = facts.submitted.dataset.official_test
    train, validation, test = split_sizes(facts.dataset.images, official_test, facts.submitted.split)
    return (*limited(train, validation, facts.submitted.images), test)
