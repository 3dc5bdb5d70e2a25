"""Commands about experiments: list collections, submit one, and show its jobs."""

from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.table import Table

from api.cli.output.display import cell
from api.cli.output.terminal import AsJson, connected, err, fail, out, show
from api.client import Chiffre

app = typer.Typer()

Follow = Annotated[bool, typer.Option("--follow", "-f", help="show the experiments live until all have ended")]


@app.command()
def experiments(
    collection: Annotated[str | None, typer.Argument(help="a collection's name; default: list all")] = None,
    scale: Annotated[float, typer.Option(min=0, max=1, help="share of images, trials and epochs, above 0")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="seed of every job")] = 0,
    only: Annotated[list[str] | None, typer.Option(help="name of an experiment to run; repeatable")] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency-Key; repeating a command with the same key submits nothing again")
    ] = None,
    following: Follow = False,
    as_json: AsJson = False,
) -> None:
    """List the collections of experiments, or submit one: each experiment becomes a job."""
    if scale == 0:
        raise typer.BadParameter("0 is not allowed; give a share above 0, such as 0.01", param_hint="--scale")
    with connected() as client:
        if collection is None:
            overview = client.experiments()
            show(overview, as_json, lambda: _overview_table(overview))
            return
        found = client.post_experiments(collection, key, scale=scale, seed=seed, only=only or None)
        _show(client, found, following, as_json)


@app.command()
def group(
    group_id: Annotated[str, typer.Argument(help="a group's id, from the output of `experiments`")],
    following: Follow = False,
    as_json: AsJson = False,
) -> None:
    """Show a submitted collection: the state and the best value of each experiment."""
    with connected() as client:
        _show(client, client.group(group_id), following, as_json)


def _show(client: Chiffre, found: dict[str, Any], following: bool, as_json: bool) -> None:
    """Show a group, live until it ends if `following`; exit with status 1 if it failed."""
    if following:
        found = _followed(client, found["id"], err if as_json else out)
        if as_json:
            show(found, as_json, None)
    else:
        show(found, as_json, lambda: group_table(found))
    if found["state"] == "failed":
        fail("an experiment failed; `chiffre job ID` shows the error")


def _followed(client: Chiffre, group_id: str, console: Console) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with Live(console=console, refresh_per_second=4) as live:
        for found in client.follow_group(group_id):
            live.update(group_table(found))
    return found


def group_table(found: dict[str, Any]) -> Table:
    """Return a group's experiments as a table."""
    title = f"group {found['id']}: {found['collection']} at scale {found['scale']:g}, {found['state']}"
    table = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD)
    for heading in ("experiment", "job", "state", "trials", "best", "seconds"):
        table.add_column(heading, justify="right" if heading in ("trials", "best", "seconds") else "left", no_wrap=True)
    for member in found["experiments"]:
        job = member["job"]
        ended = sum(count for state, count in job["trials"].items() if state != "running")
        best = cell(job["best"]["value"] if job["best"] else None)
        trials = f"{ended}/{job['trial_limit']}"
        table.add_row(member["name"], job["id"], job["state"], trials, best, f"{job['active_seconds']:.1f}")
    return table


def _overview_table(overview: dict[str, Any]) -> Table:
    table = Table("collection", "experiment", "network", "trials", "title", header_style="bold", box=SIMPLE_HEAD)
    table.columns[1].no_wrap = True
    for found in overview["collections"]:
        for experiment in found["experiments"]:
            row = (experiment["name"], experiment["model"], f"{experiment['trials']:,}", experiment["title"])
            table.add_row(found["name"], *row)
    return table
