"""Tables and pictures in characters."""

from collections.abc import Iterable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.json import JSON
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from api.client import CLASSIFIES

SHADES = " .:-=+*#%@"
ID_WIDTH = 12  # characters of a job's id, never shortened because people copy it from a table


def trial_table(trials: Iterable[dict[str, Any]], best: int | None = None) -> Table:
    """Return trials as a table; mark the best one."""
    rows = list(trials)
    names = _varying(rows)
    # Little padding: with three differing hyper-parameters the table just fits a terminal of 80 columns.
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("trial", "state", *names, "epochs", "loss", "accuracy", "sec"):
        table.add_column(heading, no_wrap=heading != "hidden_sizes", justify="left" if heading == "state" else "right")
    for trial in rows:
        params = [cell((trial["params"] or {}).get(name)) for name in names]
        results = [f"{trial['epochs_run']:g}", cell(trial["val_loss"]), percent(trial["val_accuracy"])]
        style = "bold green" if trial["number"] == best else "dim" if trial["state"] == "pruned" else None
        number = str(trial["number"]) + (" *" if trial["number"] == best else "")
        table.add_row(number, trial["state"], *params, *results, f"{trial['seconds']:.1f}", style=style)
    return table


def rung_table(rungs: Iterable[Any]) -> Table:
    """Return a trial's recorded and replayed measurements as a table."""
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for heading in ("epoch", "recorded loss", "replayed loss", "recorded accuracy", "replayed accuracy"):
        table.add_column(heading, justify="right")
    for rung in rungs:
        losses = (cell(rung.recorded_loss), cell(rung.found_loss))
        table.add_row(f"{rung.epoch:g}", *losses, percent(rung.recorded_accuracy), percent(rung.found_accuracy))
    return table


def job_table(jobs: Iterable[dict[str, Any]]) -> Table:
    """Return jobs as a table."""
    table = Table(
        "job", "state", "network", "data set", "trials", "best", "created", header_style="bold", box=SIMPLE_HEAD
    )
    table.columns[0].no_wrap, table.columns[0].min_width = True, ID_WIDTH
    for job in jobs:
        ended = sum(count for state, count in job["trials"].items() if state != "running")
        best = cell(job["best"]["value"]) if job["best"] else "–"
        progress = f"{ended}/{job['trial_limit']}" if job["kind"] not in CLASSIFIES else "–"
        table.add_row(job["id"], job["state"], job["model"], job["dataset"], progress, best, job["created_at"][:19])
    return table


def job_view(job: dict[str, Any]) -> RenderableType:
    """Return a job's row, followed by its error and its result if it has them."""
    views: list[RenderableType] = [job_table([job])]
    if job["error"] is not None:
        views.append(Text(job["error"], style="red"))
    if job["result"] is not None:
        views.append(result_view(job["result"]))
    return Group(*views)


def model_table(models: Iterable[dict[str, Any]]) -> Table:
    """Return published versions as a table; mark the champions."""
    headings = ("network", "version", "data set", "validation", "test", "weights", "job", "trial")
    table = Table(*headings, header_style="bold", box=SIMPLE_HEAD)
    table.columns[6].no_wrap, table.columns[6].min_width = True, ID_WIDTH
    for version in (version for model in models for version in model["versions"]):
        name = f"{version['model']}{' *' if version['champion'] else ''}"
        accuracies = [percent(version["val_accuracy"]), percent(version["test_accuracy"])]
        origin = [f"{version['weights']:,}", version["job_id"], str(version["trial"])]
        table.add_row(name, str(version["version"]), version["dataset"], *accuracies, *origin)
    return table


def check_view(found: dict[str, Any]) -> RenderableType:
    """Return the answer to `--check`: the estimated duration and the complete specification."""
    if found["seconds"] is None:
        duration = "No estimate yet: no similar job has run here."
    else:
        duration = (
            f"Estimated duration: {found['seconds'] / 60:,.1f} min, from {found['measured_trials']:,} earlier trials."
        )
    head = Text(f"The specification is valid: {found['trial_limit']:,} trials at most. {duration}")
    return Group(head, JSON.from_data(found["spec"]))


def check_table(checks: Iterable[Any]) -> Table:
    """Return the checks of an installation as a table."""
    marks = {"good": "[green]✓[/]", "doubtful": "[yellow]![/]", "wrong": "[red]✗[/]"}
    table = Table("", "check", "found", "what to do", header_style="bold", box=SIMPLE_HEAD)
    for check in checks:
        table.add_row(marks[check.state], check.name, Text(check.found), Text(check.advice or "–"))
    return table


def result_view(result: dict[str, Any]) -> RenderableType:
    """Return a predict job's counts, its accuracy and its confusion matrix."""
    counts = ", ".join(f"{result[name]:,} {name}" for name in ("images", "unusable", "abstained", "labelled"))
    if result["confusion_matrix"] is None:
        return Text(counts)
    names = [escape(name) for name in result["classes"]]  # a class name may look like markup
    table = Table("true", *names, header_style="bold", box=SIMPLE_HEAD, title="predicted")
    for name, row in zip(names, result["confusion_matrix"], strict=True):
        table.add_row(name, *(f"{count:,}" for count in row))
    low, high = result["interval"] or (None, None)
    accuracy = f"{percent(result['accuracy'])} ({percent(low)} to {percent(high)})"
    return Group(Text(f"{counts}; accuracy {accuracy}"), table)


def picture(rows: list[list[float]]) -> str:
    """Return a grey image of 0..255 as characters; each line shows two rows, which keeps the proportions."""
    pairs = zip(rows[::2], rows[1::2], strict=False)
    return "\n".join("".join(_shade((a + b) / 2) for a, b in zip(*pair, strict=True)) for pair in pairs)


def _varying(trials: list[dict[str, Any]]) -> list[str]:
    """Return the hyper-parameters that differ between trials; all of them if there is only one trial."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in (trial["params"] or {}).items():
            values.setdefault(name, set()).add(str(value))
    return [name for name, seen in values.items() if len(seen) > 1 or len(trials) == 1]


def _shade(value: float) -> str:
    return SHADES[min(int(value / 256 * len(SHADES)), len(SHADES) - 1)]


def cell(value: Any) -> str:
    """Return a value as the text of a table cell."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def percent(value: float | None) -> str:
    """Return a share as a percentage; – for None."""
    return "–" if value is None else f"{100 * value:.2f} %"
