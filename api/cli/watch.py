"""The commands that watch: a job live until it has ended, and whether the installation is sound."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from api.cli.output.display import check_table
from api.cli.output.live import follow as follow_live
from api.cli.output.terminal import FAILED, AsJson, connected, fail, out, reporting_errors, show
from api.client import Chiffre
from worker.settings import Settings

app = typer.Typer()


@app.command()
def follow(job_id: Annotated[str, typer.Argument(help="a job's id")], as_json: AsJson = False) -> None:
    """Show a job live until it has ended: its curves, its best trials and its newest.

    With --json its events, one a line. Status 1 where it fails or is cancelled.
    """
    with connected() as client:
        if as_json:
            for event in client.events(job_id):
                print(json.dumps(event), flush=True)
            ended = client.job(job_id)
        else:
            ended = follow_live(client, job_id, out)
        if ended["state"] != "completed":
            fail(ended["error"] or f"job {job_id} is {ended['state']}; `chiffre trials {job_id}` shows what it has")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check the installation, and say what to do where something is wrong; status 1 where something is."""
    from api.cli.doctor import checked  # looks at everything, so it imports much

    with reporting_errors():
        checks = list(checked(Settings(), Chiffre(timeout=5)))
    show([asdict(check) for check in checks], as_json, lambda: check_table(checks))
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(FAILED)
