"""What the command shows: tables, bars and digits drawn in characters."""

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from api.client import FINAL, Chiffre

SHADES = " .:-=+*#%@"
ID_WIDTH = 12  # characters of a job's id: the one thing that a person copies from a table
SHOWN_TRIALS = 20  # rows of the live table, the newest


def trial_table(trials: Iterable[dict[str, Any]], best: int | None = None) -> Table:
    """Trials as a table, the best one marked."""
    rows = list(trials)
    names = _varying(rows)
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for heading in ("trial", "state", *names, "epochs", "loss", "accuracy", "seconds"):
        table.add_column(heading, no_wrap=heading != "hidden_sizes", justify="left" if heading == "state" else "right")
    for trial in rows:
        drawn = [cell((trial["params"] or {}).get(name)) for name in names]
        reached = [f"{trial['epochs_run']:g}", cell(trial["val_loss"]), _percent(trial["val_accuracy"])]
        style = "bold green" if trial["number"] == best else "dim" if trial["state"] == "pruned" else None
        number = str(trial["number"]) + (" *" if trial["number"] == best else "")
        table.add_row(number, trial["state"], *drawn, *reached, f"{trial['seconds']:.1f}", style=style)
    return table


def rung_table(rungs: Iterable[Any]) -> Table:
    """What a trial measured when it was recorded, and when it was replayed."""
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for heading in ("epoch", "recorded loss", "replayed loss", "recorded accuracy", "replayed accuracy"):
        table.add_column(heading, justify="right")
    for rung in rungs:
        losses = (cell(rung.recorded_loss), cell(rung.found_loss))
        table.add_row(f"{rung.epoch:g}", *losses, _percent(rung.recorded_accuracy), _percent(rung.found_accuracy))
    return table


def job_table(jobs: Iterable[dict[str, Any]]) -> Table:
    """Jobs as a table."""
    table = Table(
        "job", "state", "network", "data set", "trials", "best", "created", header_style="bold", box=SIMPLE_HEAD
    )
    table.columns[0].no_wrap, table.columns[0].min_width = True, ID_WIDTH
    for job in jobs:
        ended = sum(count for state, count in job["trials"].items() if state != "running")
        best = cell(job["best"]["value"]) if job["best"] else "–"
        progress = f"{ended}/{job['trial_limit']}" if job["kind"] != "predict" else "–"
        table.add_row(job["id"], job["state"], job["model"], job["dataset"], progress, best, job["created_at"][:19])
    return table


def model_table(models: Iterable[dict[str, Any]]) -> Table:
    """Published versions as a table."""
    headings = ("network", "version", "data set", "validation", "test", "weights", "job", "trial")
    table = Table(*headings, header_style="bold", box=SIMPLE_HEAD)
    table.columns[6].no_wrap, table.columns[6].min_width = True, ID_WIDTH
    for version in (version for model in models for version in model["versions"]):
        name = f"{version['model']}{' *' if version['champion'] else ''}"
        accuracies = [_percent(version["val_accuracy"]), _percent(version["test_accuracy"])]
        origin = [f"{version['weights']:,}", version["job_id"], str(version["trial"])]
        table.add_row(name, str(version["version"]), version["dataset"], *accuracies, *origin)
    return table


def result_view(result: dict[str, Any]) -> RenderableType:
    """What a predict job found: its counts, and which class was taken for which."""
    counts = ", ".join(f"{result[name]} {name}" for name in ("images", "unusable", "abstained", "labelled"))
    if result["confusion_matrix"] is None:
        return Text(counts)
    table = Table("true", *result["classes"], header_style="bold", box=SIMPLE_HEAD, title="taken for")
    for name, row in zip(result["classes"], result["confusion_matrix"], strict=True):
        table.add_row(name, *map(str, row))
    return Group(Text(f"{counts}; accuracy {_percent(result['accuracy'])}"), table)


def follow(client: Chiffre, job_id: str, console: Console) -> dict[str, Any]:
    """Show a job, and the trials that it has, live until it has ended; the job as it ended."""
    job: dict[str, Any] = {}
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        for job in client.follow(job_id):
            newest = islice(client.trials(job_id, order_by="-number", limit=SHOWN_TRIALS), SHOWN_TRIALS)
            live.update(_progress(job, list(newest)))
    return job


def picture(pixels: list[float], width: int = 28) -> str:
    """A grey image of 0..255 as characters, two rows in one line so that it keeps its shape."""
    rows = [pixels[start : start + width] for start in range(0, len(pixels), width)]
    pairs = zip(rows[::2], rows[1::2], strict=False)
    return "\n".join("".join(_shade((a + b) / 2) for a, b in zip(*pair, strict=True)) for pair in pairs)


def _progress(job: dict[str, Any], trials: list[dict[str, Any]]) -> RenderableType:
    if job["kind"] == "predict":
        return Text(f"job {job['id']}: {job['state']}")
    ended = sum(count for state, count in job["trials"].items() if state != "running")
    limit = job["trial_limit"]
    seconds = job["spec"]["budget"].get("seconds")
    share = ended / limit
    with suppress(TypeError):  # no limit of seconds
        share = max(share, min(1.0, job["active_seconds"] / seconds))
    share = 1.0 if job["state"] in FINAL else share
    best = f"best {cell(job['best']['value'])} (trial {job['best']['trial']})" if job["best"] else "no result yet"
    states = ", ".join(f"{count} {state}" for state, count in job["trials"].items())
    head = Text(f"job {job['id']}: {job['state']} · {states or 'waiting for a worker'} · {best}")
    bar = Table.grid()
    bar.add_row(ProgressBar(total=1.0, completed=share, width=60))
    return Group(head, bar, trial_table(reversed(trials), job["best"] and job["best"]["trial"]))


def _varying(trials: list[dict[str, Any]]) -> list[str]:
    """The hyper-parameters that differ between trials; all where there is only one."""
    values: dict[str, set[str]] = {}
    for trial in trials:
        for name, value in (trial["params"] or {}).items():
            values.setdefault(name, set()).add(str(value))
    return [name for name, seen in values.items() if len(seen) > 1 or len(trials) == 1]


def _shade(value: float) -> str:
    return SHADES[min(int(value / 256 * len(SHADES)), len(SHADES) - 1)]


def cell(value: Any) -> str:
    """A value in few characters; a dash where there is none."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"
