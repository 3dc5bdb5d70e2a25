"""The commands `follow`, which draws a job live, and `doctor`."""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from rich.console import Console
from sqlalchemy import text
from support.worker_tools import Work
from typer.testing import CliRunner

import api.cli.doctor
from api.cli.app import app
from api.cli.doctor import Check, checks_of
from api.cli.output.braille import plot
from api.cli.output.live import bars, curves
from api.client import Chiffre
from api.connection import ApiError
from ml.records import TrialState
from tests.api.tools import TUNE
from worker.database.engine import Database
from worker.database.migrations import migrate
from worker.errors import SchemaError
from worker.local import free_port
from worker.settings import Settings


def run(url: str, *arguments: str) -> Result:
    """Run the command against an API."""
    return CliRunner(env={"CHIFFRE_URL": url, "COLUMNS": "160"}).invoke(app, arguments)


def drawn(view: Any) -> str:
    """Return the text of a view."""
    console = Console(width=160)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def lit(rows: list[str]) -> set[tuple[int, int]]:
    """Return the dots of a drawing as (column, row) from the top left, by Unicode's numbering of the dots."""
    numbering = {1: (0, 0), 2: (0, 1), 3: (0, 2), 4: (1, 0), 5: (1, 1), 6: (1, 2), 7: (0, 3), 8: (1, 3)}
    found = set()
    for y, row in enumerate(rows):
        for x, character in enumerate(row):
            for dot, (column, below) in numbering.items():
                if ord(character) - 0x2800 >> (dot - 1) & 1:
                    found.add((2 * x + column, 4 * y + below))
    return found


def test_a_line_goes_from_its_first_to_its_last_point() -> None:
    """A diagonal sets the dots in both corners, and at least one dot in every column and row in between."""
    rows, span = plot([[(0, 0.5), (1, 0.9)]], width=10, height=5)
    dots = lit(rows)

    assert span == (0.5, 0.9)
    assert {(0, 19), (19, 0)} <= dots
    assert {x for x, _ in dots} == {y for _, y in dots} == set(range(20))


def test_an_empty_and_a_constant_curve_can_be_drawn() -> None:
    """An empty curve gives blanks, and a constant curve gives one row of dots."""
    level, span = plot([[(1, 0.5), (2, 0.5)]], width=4, height=2)

    assert plot([], width=4, height=2) == ([" " * 4] * 2, None)
    assert span == (0.5, 0.5)
    assert lit(level) == {(x, 0) for x in range(8)}


def test_best_trials_are_drawn_as_bars_and_curves_as_lines() -> None:
    """Each bar has its trial and value, and the plot has its limits, for an accuracy and for a loss."""
    trials = [{"number": n, "val_accuracy": v, "val_loss": 1 - v} for n, v in ((7, 0.98), (3, 0.95), (5, 0.9))]
    curve = {"epoch": [1, 2], "val_accuracy": [0.8, 0.9], "val_loss": [0.5, None]}
    accuracy = drawn(bars(trials, "-val_accuracy"))
    loss = drawn(bars(trials[::-1], "val_loss"))

    assert all(text in accuracy for text in ("7", "98.00 %", "90.00 %", "best trials by val_accuracy"))
    assert "0.1" in loss
    assert all(text in drawn(curves([curve], "-val_accuracy")) for text in ("0.8", "0.9", "val_accuracy by epoch"))
    assert drawn(curves([], "val_loss")).strip() == ""


@pytest.fixture
def finished(work: Work, url: str) -> dict[str, Any]:
    """Return a job whose two trials have ended."""
    with Chiffre(url) as client:
        job = client.tune(TUNE)
        for value in (0.5, 0.75):
            claim = work.leases.claim()
            assert claim is not None
            work.run_trial(claim, value, TrialState.COMPLETED)
        client.cancel(job["id"])  # no worker publishes in this test
        return job


def test_follow_shows_a_job_until_it_has_ended(url: str, finished: dict[str, Any]) -> None:
    """The command shows state, trials and values; a cancelled job gives status 1 and a message."""
    result = run(url, "follow", finished["id"])

    assert result.exit_code == 1
    assert "75.00 %" in result.stdout
    assert f"job {finished['id']} is cancelled" in result.stderr


@pytest.mark.parametrize(("status", "said"), [(503, "is cancelled"), (404, "not just now")])
def test_follow_survives_an_api_that_goes_away_between_two_requests(
    url: str, finished: dict[str, Any], monkeypatch: pytest.MonkeyPatch, status: int, said: str
) -> None:
    """One view takes several requests. An API that is away is asked again, and any other error is reported."""

    def trials(*_: object, **__: object) -> Iterator[dict[str, Any]]:
        raise ApiError("not just now", status)

    monkeypatch.setattr(Chiffre, "trials", trials)
    result = run(url, "follow", finished["id"])

    assert result.exit_code == 1
    assert said in result.stderr


def test_follow_with_json_prints_the_events(url: str, finished: dict[str, Any]) -> None:
    """The command prints one event per line, with the content of the API's stream."""
    events = [json.loads(line) for line in run(url, "follow", finished["id"], "--json").stdout.splitlines()]
    with Chiffre(url) as client:
        expected = list(client.events(finished["id"]))

    assert events == expected
    assert events[-1]["data"]["state"] == "cancelled"


# --- the doctor


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for state, and replace the slow check of torch, which one test runs itself."""
    monkeypatch.setattr(api.cli.doctor, "_torch", lambda: Check("PyTorch", "good", "not looked at"))
    return tmp_path


def found(home: Path, url: str, **given: str) -> dict[str, Check]:
    """Return the doctor's checks by name."""
    settings = Settings(home=home, **given)  # type: ignore[arg-type]
    with Chiffre(url, timeout=5) as client:
        return {check.name: check for check in checks_of(settings, client)}


def test_an_installation_without_running_services_has_no_error(home: Path) -> None:
    """Nothing is wrong, and the doctor says how to start."""
    checks = found(home, f"http://127.0.0.1:{free_port()}")

    assert [check.name for check in checks.values() if check.state == "wrong"] == []
    assert checks["API"].advice == "run `chiffre up`"
    assert "b411ecfe11a8" in checks["data set mnist"].found


def test_the_doctor_finds_that_torch_computes() -> None:
    """A separate process runs this check."""
    assert api.cli.doctor._torch().state == "good"


def test_every_error_of_the_doctor_comes_with_advice(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test covers a missing schema, a broker and an API that do not answer, a full disk, and missing data sets."""
    database = Database(f"sqlite:///{home / 'empty.db'}")
    with database.writing():
        pass
    database.close()
    (home / "empty.db").touch()
    monkeypatch.setattr(api.cli.doctor, "TOO_LITTLE", 1 << 60)
    monkeypatch.setattr("ml.datasets.DATA", home)
    urls = {"database_url": f"sqlite:///{home / 'empty.db'}", "broker_url": f"redis://127.0.0.1:{free_port()}"}
    wrong = {
        name: check.advice
        for name, check in found(home, "http://127.0.0.1:1", **urls).items()
        if check.state == "wrong"
    }

    assert {"database", "broker", "disk", "data set mnist", "data set digits"} <= set(wrong)
    assert wrong["database"] == "run `chiffre migrate`"
    assert all(wrong.values())


def test_a_database_of_another_release_is_not_migrated(home: Path) -> None:
    """Migration is refused with a reason, and the doctor says what helps."""
    database = Database(f"sqlite:///{home / 'chiffre.db'}")
    migrate(database)
    with database.writing() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SchemaError, match="9999"):
        migrate(database)
    database.close()
    check = found(home, "http://127.0.0.1:1")["database"]

    assert (check.state, check.advice) == ("wrong", "install that release")
    assert "migration 9999 of another release" in check.found


def test_the_doctor_finds_an_api_that_answers(url: str, home: Path) -> None:
    """The API is ready at the address that the commands use."""
    check = found(home, url)["API"]

    assert check.state == "good"
    assert url in check.found


def test_the_command_doctor_prints_checks_as_json(home: Path) -> None:
    """The output is a list of checks; the exit status is 1 if anything is wrong."""
    result = run(f"http://127.0.0.1:{free_port()}", "doctor", "--json")
    checks = json.loads(result.stdout)

    assert {tuple(check) for check in checks} == {tuple(asdict(Check("", "good", "")))}
    assert result.exit_code == any(check["state"] == "wrong" for check in checks)
