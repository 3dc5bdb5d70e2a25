"""The tables of a report, in words and numbers."""

from dataclasses import dataclass
from typing import Any

from api.report.costs import costs, front_of
from api.report.facts import Facts
from api.report.winner import Answers
from api.report.wording import WIDE, Wording
from ml.datasets import limited, split_sizes
from ml.prediction.calibration import Calibration
from worker.database.tables import ModelVersion, Trial

BEST, LOST = 15, 20  # rows of the tables of the best trials, and of those that came to nothing

Row = list[str]


@dataclass(frozen=True)
class Table:
    """A table: its heading cells, its rows, and which of them stand out."""

    head: Row
    rows: list[Row]
    strong: frozenset[int] = frozenset()
    numeric_from: int = 1  # the first column that holds numbers


class Tables:
    """The tables of one job in one language."""

    def __init__(self, facts: Facts, answers: Answers | None, winner: Trial | None, wording: Wording) -> None:
        self.facts = facts
        self.answers = answers
        self.winner = winner
        self.t = wording

    def asked(self) -> Table:
        """What was asked for, field by field."""
        spec = self.facts.posted.model_dump(mode="json", exclude={"search_space", "params"}, exclude_none=True)
        rows = [[name, self.t.value(value)] for name, value in spec.items()]
        return Table([self.t("field"), self.t("value")], rows, numeric_from=2)

    def space(self) -> Table:
        """What was searched."""
        space = self.facts.spec.search_space
        rows = [[name, self._searched(dimension.model_dump(mode="json"))] for name, dimension in space.items()]
        return Table([self.t("parameter"), self.t("searched")], rows, numeric_from=2)

    def states(self) -> Table:
        """How many trials ended how."""
        counts: dict[str, int] = {}
        for trial in self.facts.trials:
            counts[trial.state] = counts.get(trial.state, 0) + 1
        rows = [[self.t(state), self.t.number(count)] for state, count in sorted(counts.items())]
        return Table([self.t("state"), self.t("trials")], rows)

    def cost(self) -> Table:
        """What it took."""
        job, trials = self.facts.job, self.facts.trials
        training = sum(trial.seconds for trial in trials)
        rows = [
            [self.t("time with a trial at work"), self.t.duration(job.active_seconds)],
            [self.t("training and evaluation, summed over trials"), self.t.duration(training)],
            [self.t("epochs, summed over trials"), self.t.number(round(sum(trial.epochs_run for trial in trials), 1))],
            [self.t("arithmetic, estimated at three forward passes an image"), self._arithmetic()],
            [self.t("trials that train together"), self.t.number(job.lanes)],
        ]
        if self.facts.reruns:
            seconds = sum(rerun.seconds for rerun in self.facts.reruns)
            rows.append([self.t("training and evaluation in the run-off"), self.t.duration(seconds)])
        return Table([self.t("what"), self.t("how much")], rows)

    def best(self) -> Table:
        """The best trials."""
        names = self._varied()
        head = [self.t("trial"), *names, self.t("epochs"), self.t("validation accuracy"), self.t("validation loss")]
        head += [self.t("weights"), self.t("seconds")]
        shown = self.facts.best[:BEST]
        strong = {i for i, trial in enumerate(shown) if self.winner and trial.number == self.winner.number}
        return Table(head, [self._row(trial, names) for trial in shown], frozenset(strong), numeric_from=0)

    def fronts(self) -> list[tuple[str, Table]]:
        """The fronts as tables, by what they weigh accuracy against."""
        found = []
        for name, cost in costs(self.facts).items():
            rows = [
                [self.t.number(trial.number), self._reached(trial), self.t.number(cost(trial))]
                for trial in front_of(self.facts.job, self.facts.judged, cost)
            ]
            head = [self.t("trial"), self.t("validation accuracy" if self.facts.job.maximize else "validation loss")]
            if rows:
                found.append((self.t(name), Table([*head, self.t(name)], rows, numeric_from=0)))
        return found

    def lost(self) -> Table | None:
        """Trials that came to nothing, and why."""
        shown = self.facts.unfinished[:LOST]
        if not shown:
            return None
        rows = [[str(trial.number), self.t(trial.state), self._reason(trial), self._params(trial)] for trial in shown]
        head = [self.t("trial"), self.t("state"), self.t("why"), self.t("parameters")]
        return Table(head, rows, numeric_from=4)

    def params(self) -> Table | None:
        """The winner's hyper-parameters."""
        if self.winner is None:
            return None
        rows = [[name, self.t.value(value)] for name, value in (self.winner.params or {}).items()]
        return Table([self.t("parameter"), self.t("value")], rows)

    def classes(self) -> Table | None:
        """How well the winner tells each class."""
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
        """How far confidence is from accuracy, before and after calibration."""
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
        return Table([self.t("what"), self.t("calibrated"), self.t("uncalibrated")], rows)

    def provenance(self) -> Table:
        """Where it all came from."""
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
            [self.t("images to train / validate / test"), sizes],
            [self.t("machines that worked on it"), ", ".join(self.facts.workers) or "–"],
        ]
        if version is not None:
            rows += self._of_version(version)
        return Table([self.t("what"), self.t("value")], rows, numeric_from=2)

    def history(self) -> Table:
        """What happened to the job."""
        rows = [[self.t.instant(e.at), self.t(e.state), self.t.recorded(e.detail or "")] for e in self.facts.history]
        return Table([self.t("when"), self.t("state"), self.t("what")], rows, numeric_from=3)

    def _of_version(self, version: ModelVersion) -> list[Row]:
        files, environment = self.facts.files, version.environment or {}
        versions = ", ".join(f"{name} {number}" for name, number in sorted(environment.get("versions", {}).items()))
        unknown = self.t("not recorded")
        accelerator = environment.get("accelerator") or self.t("none")
        return [
            [self.t("published as"), f"{version.model} {version.version}"],
            [self.t("SHA-256 of the weights"), files["checkpoint"].sha256],
            [self.t("SHA-256 of the graph"), files["onnx"].sha256],
            [
                self.t("processor"),
                f"{environment['processor']}, {environment['cores']} {self.t('cores')}" if environment else unknown,
            ],
            [self.t("accelerator"), accelerator if environment else unknown],
            [self.t("system"), environment.get("system", unknown)],
            [self.t("versions"), f"chiffre {version.code_version}" + (f", {versions}" if versions else "")],
            [self.t("one image on one core"), self._latency(version.latency_seconds)],
        ]

    def _latency(self, seconds: float | None) -> str:
        return "–" if seconds is None else f"{self.t.number(1e6 * seconds, 3)}{WIDE}µs"

    def _arithmetic(self) -> str:
        """A backward pass costs about two forward ones."""
        images = sizes_of(self.facts)[0]
        total = sum(3 * (trial.flops or 0) * trial.epochs_run * images for trial in self.facts.trials)
        return f"{self.t.number(total / 1e12, 3)}{WIDE}TFLOP"

    def _reason(self, trial: Trial) -> str:
        return "–" if trial.reason is None else self.t.recorded(trial.reason)

    def _reached(self, trial: Trial) -> str:
        return self.t.percent(trial.value) if self.facts.job.maximize else self.t.number(trial.value)

    def _row(self, trial: Trial, names: list[str]) -> Row:
        drawn = [self.t.value((trial.params or {}).get(name, "–")) for name in names]
        reached = [self.t.number(trial.best_epoch), self.t.percent(trial.val_accuracy), self.t.number(trial.val_loss)]
        return [
            str(trial.number),
            *drawn,
            *reached,
            self.t.number(trial.weights),
            self.t.number(round(trial.seconds, 1)),
        ]

    def _varied(self) -> list[str]:
        """The parameters of the search in which trials differ."""
        judged = self.facts.judged
        return [
            name
            for name in self.facts.spec.search_space
            if len({str((trial.params or {}).get(name)) for trial in judged}) > 1
        ]

    def _params(self, trial: Trial) -> str:
        named = trial.params or {}
        return ", ".join(
            f"{name} {self.t.value(named[name])}" for name in self.facts.spec.search_space if name in named
        )

    def _searched(self, dimension: Any) -> str:
        """A dimension, as JSON has it, in signs."""
        if not isinstance(dimension, dict):
            return self.t.value(dimension)
        if dimension["type"] == "list":
            return f"{self._searched(dimension['length'])} × ({self._searched(dimension['items'])})"
        values = dimension.get("choices", dimension.get("values"))
        if values is not None:
            return self.t.value(values)
        bounds = " – ".join(self.t.number(dimension[bound]) for bound in ("low", "high"))
        step = dimension.get("step")
        told = [bounds, *(["log"] if dimension["log"] else [])]
        return ", ".join([*told, *([f"{self.t('step')} {self.t.number(step)}"] if step not in (None, 1) else [])])


def sizes_of(facts: Facts) -> tuple[int, int, int]:
    """How many images train, validate and test."""
    official_test = facts.posted.dataset.official_test
    train, validation, test = split_sizes(facts.dataset.images, official_test, facts.posted.split)
    return (*limited(train, validation, facts.posted.images), test)
