"""A job live in the terminal: how far it is, its best trials as bars, its learning curves, its newest trials."""

from collections.abc import Sequence
from itertools import islice
from time import monotonic
from typing import Any

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from api.cli.output.braille import plot
from api.cli.output.display import cell, percent, trial_table
from api.client import CLASSIFIES, FINAL, Chiffre, is_away
from api.connection import ApiError

SHOWN_TRIALS = 12  # rows of the live table, the newest
BARS = 6  # the best trials
CURVES = 40  # of so many trials, the newest, are lines drawn
WIDTH, HEIGHT = 48, 8  # characters of the drawing


class RecentCurves:
    """The curves of a job's newest trials, fetched anew in at most a tenth of the time: a long job has a megabyte."""

    def __init__(self) -> None:
        self._found: list[dict[str, Any]] = []
        self._due = 0.0

    def of(self, client: Chiffre, job: dict[str, Any]) -> list[dict[str, Any]]:
        """Those that are known; of a job that has ended the last."""
        began = monotonic()
        if began >= self._due or job["state"] in FINAL:
            self._found = client.curves(job["id"])[-CURVES:]
            self._due = began + 10 * (monotonic() - began)
        return self._found


def follow(client: Chiffre, job_id: str, console: Console) -> dict[str, Any]:
    """Show a job live until it has ended; the job as it ended."""
    job: dict[str, Any] = {}
    seen = RecentCurves()
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        for job in client.follow(job_id):
            try:
                live.update(_progress(job) if job["kind"] in CLASSIFIES else _view(client, job, seen))
            except ApiError as error:
                if not is_away(error):  # else the next look waits until it is back
                    raise
    return job


def _view(client: Chiffre, job: dict[str, Any], seen: RecentCurves) -> RenderableType:
    newest = list(islice(client.trials(job["id"], order_by="-number", limit=SHOWN_TRIALS), SHOWN_TRIALS))
    column = _column(job)
    best = islice(client.trials(job["id"], order_by=column, limit=BARS), BARS)
    parts: list[RenderableType] = [_progress(job)]
    if any(trial["epochs_run"] for trial in newest):
        parts.append(Columns([curves(seen.of(client, job), column), bars(list(best), column)]))
    table = trial_table(reversed(newest), job["best"] and job["best"]["trial"])
    return Group(*parts, table)


def curves(found: Sequence[dict[str, Any]], column: str) -> RenderableType:
    """The curves of trials by epoch, as lines; `column` is the figure, with - before it where more is better."""
    name = column.removeprefix("-")
    lines = [
        [(epoch, value) for epoch, value in zip(one["epoch"], one[name], strict=True) if value is not None]
        for one in found
    ]
    rows, span = plot(lines, WIDTH, HEIGHT)
    if span is None:
        return Text("")
    low, high = (cell(value) for value in span)
    margin = max(len(low), len(high))
    labels = [high, *[""] * (HEIGHT - 2), low]
    drawn = "\n".join(f"{label:>{margin}} {row}" for label, row in zip(labels, rows, strict=True))
    return Panel(Text(drawn), title=f"{name} by epoch", expand=False)


def bars(trials: Sequence[dict[str, Any]], column: str) -> RenderableType:
    """The best trials by a figure, each with a bar between the least that is shown and the best."""
    name = column.removeprefix("-")
    reached = [trial for trial in trials if trial[name] is not None]
    if not reached:
        return Text("")
    values = [trial[name] for trial in reached]
    low, high = min(values), max(values)
    grid = Table.grid(padding=(0, 1))
    for trial, value in zip(reached, values, strict=True):
        share = (value - low) / (high - low) if high > low else 1.0
        share = 1 - share if column == name and high > low else share  # of a loss the least is the longest
        figure = percent(value) if name.endswith("accuracy") else cell(value)
        grid.add_row(str(trial["number"]), ProgressBar(total=1.0, completed=0.1 + 0.9 * share, width=24), figure)
    return Panel(grid, title=f"best trials by {name}", expand=False)


def _column(job: dict[str, Any]) -> str:
    """What trials are ordered by, the best first."""
    return "val_loss" if job["spec"].get("objective") == "val_loss" else "-val_accuracy"


def _progress(job: dict[str, Any]) -> RenderableType:
    """A job's state and how far it is."""
    if job["kind"] in CLASSIFIES:
        return Text(f"job {job['id']}: {job['state']}")
    best = f"best {cell(job['best']['value'])} (trial {job['best']['trial']})" if job["best"] else "no result yet"
    states = ", ".join(f"{count} {state}" for state, count in job["trials"].items())
    head = Text(f"job {job['id']}: {job['state']} · {states or 'waiting for a worker'} · {best}")
    bar = Table.grid()
    # Of a run-off and a publication nothing tells how far they are.
    bar.add_row(ProgressBar(total=1.0, completed=_share(job), width=60, pulse=job["state"] == "stopping"))
    return Group(head, bar)


def _share(job: dict[str, Any]) -> float:
    """How much of its budget a job has spent, 0..1."""
    if job["state"] in FINAL:
        return 1.0
    ended = sum(count for state, count in job["trials"].items() if state != "running")
    seconds = job["spec"]["budget"].get("seconds")
    by_time = job["active_seconds"] / seconds if seconds else 0.0
    return float(min(1.0, max(ended / job["trial_limit"], by_time)))
