"""Every experiment of the report, at its smallest scale, through the HTTP API."""

from pathlib import Path

import pytest
from acceptance.services import chiffre_up, run_command

from api.client import Chiffre

SMALLEST = 1e-6  # every least is above it


@pytest.mark.long
def test_the_whole_report_runs_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    """The services are ended in the middle; those that start next complete every job, and one report tells of all."""
    with chiffre_up(tmp_path) as up, Chiffre(up.url) as client:
        group = client.post_experiments("mnist-report", key="report", scale=SMALLEST)
        first = group["experiments"][0]["job"]["id"]
        next(job for job in client.follow(first) if job["state"] == "completed")
    with chiffre_up(tmp_path) as up, Chiffre(up.url) as client:
        again = client.post_experiments("mnist-report", key="report", scale=SMALLEST)
        for member in group["experiments"]:
            *_, _ = client.follow(member["job"]["id"])
        ended = client.group(group["id"])
        jobs = [member["job"] for member in ended["experiments"]]
        written = run_command(up, "report", group["id"], "--out", str(tmp_path / "report.html"))

    assert again["id"] == group["id"]
    assert ended["state"] == "completed"
    assert all(job["version"] and sum(job["trials"].values()) == job["trial_limit"] for job in jobs)
    assert written.returncode == 0, written.stderr
    assert all(job["id"] in (tmp_path / "report.html").read_text() for job in jobs)
