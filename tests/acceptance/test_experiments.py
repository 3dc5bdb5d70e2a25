"""Every experiment of the report, at its smallest scale, through the HTTP API."""

import io
from pathlib import Path
from typing import Any

import html5lib
import pandas as pd
import pytest
from acceptance.services import chiffre_up, run_command
from scipy.stats import binomtest

from api.client import Chiffre
from ml.datasets import split_sizes

SMALLEST = 1e-6  # so small that every experiment runs at its minimum
TESTED = split_sizes(70_000, None, "random")[2]


@pytest.mark.soak
def test_the_whole_report_completes_after_everything_was_killed(tmp_path: Path) -> None:
    """After the next start every job completes, and the report of all agrees with pandas and SciPy."""
    with chiffre_up(tmp_path) as up, Chiffre(up.url) as client:
        group = client.post_experiments("mnist-report", key="report", scale=SMALLEST)
        first = group["experiments"][0]["job"]["id"]
        next(job for job in client.follow(first) if job["state"] == "completed")
        up.kill()
    with chiffre_up(tmp_path) as up, Chiffre(up.url) as client:
        again = client.post_experiments("mnist-report", key="report", scale=SMALLEST)
        for member in group["experiments"]:
            *_, _ = client.follow(member["job"]["id"])
        ended = client.group(group["id"])
        jobs = [member["job"] for member in ended["experiments"]]
        written = run_command(up, "report", group["id"], "--out", str(tmp_path / "report.html"))
        expected = [expected_row(client, job) for job in jobs]

    assert again["id"] == group["id"]
    assert ended["state"] == "completed"
    assert all(job["version"] and sum(job["trials"].values()) == job["trial_limit"] for job in jobs)
    assert written.returncode == 0, written.stderr
    assert overview(tmp_path / "report.html") == expected


def expected_row(client: Chiffre, job: dict[str, Any]) -> list[str]:
    """Return a job's expected row in the overview: trials and winner from the CSV, and the interval from SciPy."""
    trials = pd.read_csv(io.StringIO(client.table(job["id"]))).set_index("number")
    version = client.version(job["version"]["model"], job["version"]["version"])
    right = round(version["test_accuracy"] * TESTED)
    low, high = binomtest(right, TESTED).proportion_ci(method="wilson")
    shares = [f"{100 * share:.2f}\u00a0%" for share in (trials["val_accuracy"][version["trial"]], right / TESTED)]
    return [job["model"], job["state"], str(len(trials)), *shares, f"{100 * low:.2f} – {100 * high:.2f}\u00a0%"]


def overview(report: Path) -> list[list[str]]:
    """Return network, state, trials, both accuracies and interval of each experiment in the first table."""
    tree = html5lib.parse(report.read_text(), namespaceHTMLElements=False)
    table = next(tree.iter("table"))
    rows = [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
    return [row[2:8] for row in rows[1:]]
