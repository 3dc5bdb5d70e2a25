"""A job live in the terminal: progress, learning curves, best trials as bars, and newest trials."""

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

SHOWN_TRIALS = 12  # newest trials in the table
BARS = 6  # best trials with a bar
CURVES = 40  # newest trials with a learning curve
WIDTH, HEIGHT = 48, 8  # of the plot, in characters


class RecentCurves:
    """A cache of the learning curves of a job's newest trials.

    All curves of a long job take a megabyte. So the curves are fetched for at most a tenth of the time.
    """

    def __init__(self) -> None:
        self._found: list[dict[str, Any]] = []
        self._due = 0.0

    def of(self, client: Chiffre, job: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the cached curves, or the current ones if they are due or the job has ended."""
        began = monotonic()
        if began >= self._due or job["state"] in FINAL:
            self._found = client.curves(job["id"])[-CURVES:]
            self._due = began + 10 * (monotonic() - began)
        return self._found


def follow_job(client: Chiffre, job_id: str, console: Console) -> dict[str, Any]:
    """Show a job live until it ends, and return the ended job."""
    job: dict[str, Any] = {}
    recent = RecentCurves()
    with Live(console=console, refresh_per_second=4, transient=False) as live:
        for job in client.follow(job_id):
            try:
                live.update(_progress(job) if job["kind"] in CLASSIFIES else _view(client, job, recent))
            except ApiError as error:
                if not is_away(error):  # client.follow waits until an API that is away answers again
                    raise
    return job


def _view(client: Chiffre, job: dict[str, Any], recent: RecentCurves) -> RenderableType:
    newest = list(islice(client.trials(job["id"], order_by="-number", limit=SHOWN_TRIALS), SHOWN_TRIALS))
    column = _column(job)
    best = islice(client.trials(job["id"], order_by=column, limit=BARS), BARS)
    views: list[RenderableType] = [_progress(job)]
    if any(trial["epochs_run"] for trial in newest):
        views.append(Columns([curves(recent.of(client, job), column), bars(list(best), column)]))
    table = trial_table(reversed(newest), job["best"] and job["best"]["trial"])
    return Group(*views, table)


def curves(found: Sequence[dict[str, Any]], column: str) -> RenderableType:
    """Draw learning curves as lines.

    Args:
        found: the curves in the API's JSON.
        column: the column to draw; a leading - means that larger values are better.

    """
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
    """Draw the best trials as bars from the worst to the best value shown; `column` is as in `curves`."""
    name = column.removeprefix("-")
    measured = [trial for trial in trials if trial[name] is not None]
    if not measured:
        return Text("")
    values = [trial[name] for trial in measured]
    low, high = min(values), max(values)
    grid = Table.grid(padding=(0, 1))
    for trial, value in zip(measured, values, strict=True):
        share = (value - low) / (high - low) if high > low else 1.0
        share = 1 - share if column == name and high > low else share  # the smallest loss has the longest bar
        label = percent(value) if name.endswith("accuracy") else cell(value)
        grid.add_row(str(trial["number"]), ProgressBar(total=1.0, completed=0.1 + 0.9 * share, width=24), label)
    return Panel(grid, title=f"best trials by {name}", expand=False)


def _column(job: dict[str, Any]) -> str:
    """Return the `order_by` that puts the best trials first."""
    return "val_loss" if job["spec"].get("objective") == "val_loss" else "-val_accuracy"


def _progress(job: dict[str, Any]) -> RenderableType:
    """Return a job's state and its progress bar."""
    if job["kind"] in CLASSIFIES:
        return Text(f"job {job['id']}: {job['state']}")
    best = f"best {cell(job['best']['value'])} (trial {job['best']['trial']})" if job["best"] else "no result yet"
    states = ", ".join(f"{count} {state}" for state, count in job["trials"].items())
    head = Text(f"job {job['id']}: {job['state']} · {states or 'waiting for a worker'} · {best}")
    bar = Table.grid()
    # The progress of a run-off and of a publication is unknown, so the bar pulses.
    bar.add_row(ProgressBar(total=1.0, completed=_share(job), width=60, pulse=job["state"] == "stopping"))
    return Group(head, bar)


def _share(job: dict[str, Any]) -> float:
    """Return the share of its budget that a job has used, 0..1."""
    if job["state"] in FINAL:
        return 1.0
    ended = sum(count for state, count in job["trials"].items() if state != "running")
    seconds = job["spec"]["budget"].get("seconds")
    by_time = job["active_seconds"] / seconds if seconds else 0.0
    return float(min(1.0, max(ended / job["trial_limit"], by_time)))
