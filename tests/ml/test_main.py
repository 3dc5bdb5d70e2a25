"""`python -m ml`: the science without services."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from ml.__main__ import app
from ml.artifacts import load_checkpoint
from ml.datasets import datasets

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

SPEC = {"model": "perceptron", "dataset": "digits", "budget": {"trials": 2, "epochs": 1}}


def run(*arguments: object) -> Any:
    """Run the command in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def spec_file(folder: Path, **fields: Any) -> Path:
    """Write a specification to a file and return its path."""
    path = folder / "spec.json"
    path.write_text(json.dumps({**SPEC, **fields}))
    return path


def test_tune_runs_every_trial_and_saves_the_best(tmp_path: Path) -> None:
    """The winner's checkpoint can be loaded and names its trial."""
    done = run("tune", spec_file(tmp_path), "--out", tmp_path / "best.safetensors")
    checkpoint = load_checkpoint(tmp_path / "best.safetensors")

    assert done.exit_code == 0, done.output
    assert "trial 1: completed" in done.output
    assert f"best: trial {checkpoint.card['trial']}" in done.output


def test_train_runs_one_trial(tmp_path: Path) -> None:
    """A job with fixed hyper-parameters is one trial."""
    spec = tmp_path / "spec.json"
    spec.write_text(
        json.dumps({"model": "perceptron", "dataset": "digits", "params": {"batch_size": 32}, "budget": {"epochs": 1}})
    )
    done = run("train", spec, "--out", tmp_path / "best.safetensors")

    assert done.exit_code == 0, done.output
    assert '"batch_size": 32' in done.output
    assert "trial 1" not in done.output


def test_the_reports_own_file_can_be_trained_on(tmp_path: Path) -> None:
    """The file is a gzipped torch.save of ((images, one-hot labels), (images, one-hot labels))."""
    arrays = datasets["digits"].load()
    images = torch.tensor(arrays.images).reshape(-1, 784).float() / 255
    labels = torch.nn.functional.one_hot(torch.tensor(arrays.labels).long(), 10).float()
    file = tmp_path / "mnist.pkl.gz"
    with gzip.open(file, "wb") as stream:
        torch.save(((images[:1500], labels[:1500]), (images[1500:], labels[1500:])), stream)
    done = run("tune", spec_file(tmp_path), "--data", file, "--out", tmp_path / "best.safetensors")

    assert done.exit_code == 0, done.output
    assert "trial 1: completed" in done.output


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "JSON"),
        ('{"model": "x"}', "there is no such network"),
        ('{"model": "cnn", "budget": {"trials": 0}}', "trials"),
    ],
)
def test_a_specification_that_cannot_run_is_refused_with_a_reason(tmp_path: Path, text: str, said: str) -> None:
    """The exit status is 1, and the output has the reason instead of a traceback."""
    spec = tmp_path / "spec.json"
    spec.write_text(text)
    done = run("tune", spec)

    assert done.exit_code == 1
    assert said in done.output
    assert "Traceback" not in done.output


def test_a_file_that_is_no_data_set_is_refused_with_a_reason(tmp_path: Path) -> None:
    """For any other file, the error says which file was expected."""
    file = tmp_path / "mnist.pkl.gz"
    file.write_bytes(b"not a gzip file")
    done = run("tune", spec_file(tmp_path), "--data", file)

    assert done.exit_code == 1
    assert "is not the report's mnist.pkl.gz" in done.output


def test_a_missing_gpu_is_refused_with_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test hides the GPU of a machine that has one."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    done = run("tune", spec_file(tmp_path), "--device", "cuda")

    assert done.exit_code == 1
    assert "finds no GPU here to train on; set the device to auto or cpu" in done.output
    assert "Traceback" not in done.output


def test_sha256_prints_the_hash_in_the_registry() -> None:
    """The printed hash is the one to register a data set with."""
    assert run("sha256", "digits").output.strip() == datasets["digits"].sha256
