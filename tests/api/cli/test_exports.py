"""Exports of a job: Optuna reads the journal, TensorBoard the event files."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from support.trained_tools import Training
from support.worker_tools import Work
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
from typer.testing import CliRunner

from api.cli.app import app
from api.client import Chiffre
from ml.specs import RULES
from tests.api.tools import listening
from worker.database.tables import Job
from worker.ledger.requests import Controls

pytestmark = pytest.mark.filterwarnings("ignore:.*experimental:optuna.exceptions.ExperimentalWarning")

SPACE = {
    "batch_size": 64,
    "learning_rate": {"type": "float", "low": 1e-3, "high": 1e-1, "log": True},
    "hidden_sizes": {
        "type": "list",
        "length": {"type": "int", "low": 1, "high": 2},
        "items": {"type": "int", "low": 4, "high": 9},
    },
    "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
}


@pytest.fixture
def job(work: Work, environment: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> Job:
    """Return a search that was really trained; one of its four trials is pruned, and commands use its API."""
    monkeypatch.setenv("CHIFFRE_URL", url)
    spec = {"sampler": {"name": "random"}, "pruner": {"name": "median", "n_startup_trials": 1}, "lanes": 1}
    job = work.accept(model="mlp", search_space=SPACE, budget={"trials": 4, "epochs": 2}, **spec)
    Training(work).run()
    return work.job(job)


def run(*arguments: str) -> Any:
    """Run `chiffre export`."""
    return CliRunner().invoke(app, ["export", *arguments])


def shown(url: str, job: Job) -> list[dict[str, Any]]:
    """Return the trials in the API's JSON, with their measurements."""
    items = httpx2.get(f"{url}/jobs/{job.id}/trials").json()["items"]
    return [httpx2.get(f"{url}/jobs/{job.id}/trials/{item['number']}").json() for item in items]


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_optuna_and_tensorboard_read_the_recorded_trials(job: Job, url: str, tmp_path: Path) -> None:
    """Every trial has its parameters, state, value and curve, and hyper-parameters for HParams."""
    reported = CliRunner().invoke(app, ["report", job.id, "--lang", "fr", "--out", str(tmp_path / "report.html")])
    files = {name: str(tmp_path / name) for name in ("runs", "journal.log", "trials.csv")}
    ended = run(
        job.id, "--tensorboard", files["runs"], "--optuna", files["journal.log"], "--csv", files["trials.csv"], "--json"
    )
    study = optuna.load_study(
        study_name=job.id, storage=optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    )
    recorded = shown(url, job)
    with Chiffre(url) as client:
        report = client.report(job.id, "fr")

    assert reported.exit_code == 0, reported.output
    assert (tmp_path / "report.html").read_text() == report
    assert ended.exit_code == 0, ended.output
    assert json.loads(ended.stdout) == dict.fromkeys(files.values(), 4)
    table = httpx2.get(f"{url}/jobs/{job.id}/trials", headers={"Accept": "text/csv"}).text
    assert (tmp_path / "trials.csv").read_bytes() == table.encode()
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3]
    assert study.best_value == job.best_value
    assert study.user_attrs["rules"] == job.rules
    for trial, known in zip(study.trials, recorded, strict=True):
        assert trial.state.name.lower().removesuffix("d") == known["state"].removesuffix("d")
        assert trial.params == known["suggestion"]
        assert trial.params["learning_rate"] == known["params"]["learning_rate"]
        assert list(trial.intermediate_values.values()) == [m["val_accuracy"] for m in known["measurements"]]
        check_run(tmp_path / "runs" / f"trial-{known['number']:05}", known)
    assert "already exists" in run(job.id, "--optuna", str(tmp_path / "journal.log")).output
    check_dashboard(tmp_path / "journal.log", recorded)


def check_dashboard(journal: Path, recorded: list[dict[str, Any]]) -> None:
    """Check that optuna-dashboard opens a journal and shows every trial with parameters, curve and value."""
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), str(journal), "--quiet"]
    with listening(command, "/api/studies") as url:
        (summary,) = httpx2.get(f"{url}/api/studies").json()["study_summaries"]
        told = httpx2.get(f"{url}/api/studies/{summary['study_id']}").json()["trials"]

    assert [trial["number"] for trial in told] == [known["number"] for known in recorded]
    for trial, known in zip(told, recorded, strict=True):
        given = {one["name"]: one["param_external_value"] for one in trial["params"]}
        assert given == {name: str(value) for name, value in known["suggestion"].items()}
        assert [m["value"] for m in trial["intermediate_values"]] == [m["val_accuracy"] for m in known["measurements"]]
        assert trial.get("values", [known["value"]]) == [known["value"]]
    assert {trial["state"] for trial in told} == {"Complete", "Pruned"}


def check_run(folder: Path, known: dict[str, Any]) -> None:
    """Check that TensorBoard's reader finds a trial's curves, results and hyper-parameters."""
    events = EventAccumulator(str(folder)).Reload()
    curve = events.Scalars("val_accuracy")
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = HParamsPluginData.FromString(content).session_start_info

    assert [e.step for e in curve] == [m["images_seen"] for m in known["measurements"]]
    assert [e.value for e in curve] == pytest.approx([m["val_accuracy"] for m in known["measurements"]], rel=1e-6)
    assert events.Scalars("result/value")[0].value == pytest.approx(known["value"], rel=1e-6)
    assert started.hparams["learning_rate"].number_value == known["params"]["learning_rate"]
    assert started.hparams["rules"].number_value == RULES
    assert started.hparams["optimizer"].string_value == known["params"]["optimizer"]
    assert started.hparams["hidden_sizes"].string_value == str(known["params"]["hidden_sizes"])


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_search_over_uploaded_images_can_be_exported(work: Work, url: str, tmp_path: Path) -> None:
    """The exporting process does not have the data set."""
    rng, archive = np.random.default_rng(0), io.BytesIO()
    np.savez(archive, images=rng.integers(0, 256, (120, 6, 6), np.uint8), labels=np.arange(120) % 3)
    zipped = {"Content-Type": "application/zip"}
    httpx2.post(f"{url}/datasets?name=three", content=archive.getvalue(), headers=zipped).raise_for_status()
    body = {"model": "perceptron", "dataset": "three", "budget": {"trials": 2}, "sampler": {"name": "random"}}
    job = httpx2.post(f"{url}/jobs/tune", json=body).raise_for_status().json()
    Training(work).run()
    journal = tmp_path / "journal.log"
    command = [str(Path(sys.executable).with_name("chiffre")), "export", job["id"], "--optuna", str(journal)]
    ended = subprocess.run(command, env={**os.environ, "CHIFFRE_URL": url}, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(journal)))

    assert len(optuna.load_study(study_name=job["id"], storage=storage).trials) == 2


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_trial_keeps_its_number_after_a_trial_without_parameters(
    work: Work, environment: Path, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna numbers by position, so a trial cancelled before it had parameters is exported as failed."""
    monkeypatch.setenv("CHIFFRE_URL", url)
    job = work.accept(budget={"trials": 2, "epochs": 1}, lanes=1).id
    claim = work.leases.claim()  # a trial is reserved but gets no hyper-parameters
    assert claim is not None
    Controls(work.database).cancel_trial(job, 0)
    work.leases.close(claim)
    Training(work).run()
    ended = run(job, "--optuna", str(tmp_path / "journal.log"))
    assert ended.exit_code == 0, ended.output
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    trials = optuna.load_study(study_name=job, storage=storage).trials

    assert [(trial.number, trial.state.name) for trial in trials] == [(0, "FAIL"), (1, "COMPLETE")]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_errors_of_an_export_are_reported(
    work: Work, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test covers missing options, a job without trials, an unknown job, and a missing folder."""
    monkeypatch.setenv("CHIFFRE_URL", url)
    job = work.accept()

    assert "give one or more of" in run(job.id).output
    assert "no trials to write yet" in run(job.id, "--tensorboard", str(tmp_path / "runs")).output
    assert "no such job" in run("abc", "--optuna", str(tmp_path / "a")).output
    assert "not a folder" in run(job.id, "--optuna", str(tmp_path / "none" / "a")).output
    assert not list(tmp_path.glob(".journal-*"))
    assert not [*tmp_path.glob(".tensorboard-*"), *tmp_path.glob("runs")]
