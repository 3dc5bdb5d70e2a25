"""Commands that watch: follow a job until it ends, and check the installation."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from api.cli.output.display import check_table
from api.cli.output.live import follow_job
from api.cli.output.terminal import FAILED, AsJson, connected, fail, out, reporting_errors, show
from api.client import Chiffre
from worker.settings import Settings

app = typer.Typer()


@app.command()
def follow(job_id: Annotated[str, typer.Argument(help="a job's id")], as_json: AsJson = False) -> None:
    """Show a job live until it ends: learning curves, best trials and newest trials.

    With --json, print its events, one per line. The exit status is 1 if the job fails or is cancelled.
    """
    with connected() as client:
        if as_json:
            for event in client.events(job_id):
                print(json.dumps(event), flush=True)
            ended = client.job(job_id)
        else:
            ended = follow_job(client, job_id, out)
        if ended["state"] != "completed":
            fail(ended["error"] or f"job {job_id} is {ended['state']}; `chiffre trials {job_id}` shows its trials")


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Check the installation and say how to fix problems. The exit status is 1 if something is wrong."""
    from api.cli.doctor import checks_of  # imports the database tables, which takes about a second

    with reporting_errors():
        checks = list(checks_of(Settings(), Chiffre(timeout=5)))
    show([asdict(check) for check in checks], as_json, lambda: check_table(checks))
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(FAILED)
