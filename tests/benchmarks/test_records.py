"""Records: resumed seeds, the single evaluation on the test images, and the page."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from benchmarks.records import records, seeds
from benchmarks.records.page import page
from benchmarks.records.records import NETWORKS, Record, Scale, run
from benchmarks.records.seeds import Seed
from benchmarks.records.verdict import packed, unpacked, verdict
from ml.artifacts import save_checkpoint
from ml.datasets import datasets
from ml.layers import parameter_count
from ml.specs import TrainBudget, TrainSpec
from ml.training.lane import TrainingData
from ml.tuning.book import MemoryBook
from ml.tuning.search import Search
from ml.tuning.tune import tune

ROOT = Path(__file__).parents[2]
SMALL = Scale(seeds=2, epochs=2, images=300)

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> None:
    """Use one thread, as a trainer does."""
    torch.set_num_threads(1)


def _seed() -> Seed:
    params = {"batch_size": 40, "hidden_size": 20, "dropout": 0.2, "ema_decay": 0.9, "rotation": 5.0}
    body = {"model": "shallow", "dataset": "digits", "params": params, "budget": {"epochs": 4}, "seed": 3}
    return Seed(TrainSpec.model_validate(body), datasets["digits"].load(), None)


def _lasting(found: dict[str, Any]) -> tuple[Any, ...]:
    return found["seed"], found["val_accuracy"], found["epoch"], found["said"]


def test_a_seed_trains_like_a_training_job(tmp_path: Path) -> None:
    """Its validation accuracy is the same, and there is a prediction for every test image."""
    seed = _seed()
    spec = seed.spec.as_tune()
    book = MemoryBook(spec)
    tune(spec, TrainingData.load(datasets["digits"], "random", 3), book, Search(spec))
    found = seed.train(tmp_path / "left")

    assert book.winner is not None
    assert book.winner.best is not None
    assert found["val_accuracy"] == book.winner.best.val_accuracy
    assert len(unpacked(found["said"])) == len(seed.data_split.test)


def test_an_interrupted_seed_resumes_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends like a seed that was never interrupted, and trains no epoch twice."""
    whole = _seed().train(tmp_path / "whole")
    calls = []

    def interrupted(*arguments: Any) -> Any:
        calls.append(save_checkpoint(*arguments))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return calls[-1]

    monkeypatch.setattr(seeds, "save_checkpoint", interrupted)
    monkeypatch.setattr(seeds, "CHECKPOINT_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        _seed().train(tmp_path / "cut")
    again = _seed().train(tmp_path / "cut")

    assert _lasting(again) == _lasting(whole)
    assert len(calls) == 3


def test_a_seed_does_not_resume_from_the_checkpoint_of_another_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts again, and ends as if there had been no checkpoint."""
    monkeypatch.setattr(seeds, "CHECKPOINT_SECONDS", 0)
    before = _seed()
    changed = replace(before, spec=before.spec.model_copy(update={"budget": TrainBudget(epochs=3)}))
    before.train(tmp_path / "place")

    assert (tmp_path / "place").exists()
    assert _lasting(changed.train(tmp_path / "place")) == _lasting(changed.train(tmp_path / "empty"))


def test_the_interval_is_that_of_students_t_test() -> None:
    """Mean and 95 % interval equal SciPy's for the accuracies."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, 500).astype(np.uint8)
    predicted = [np.where(draw.random(500) < 0.9, labels, 0).astype(np.uint8) for _ in range(5)]
    found = verdict([packed(one) for one in predicted], labels)
    expected = stats.ttest_1samp([(one == labels).mean() for one in predicted], 0).confidence_interval(0.95)

    assert found["mean"] == pytest.approx(np.mean(found["accuracies"]))
    assert found["interval"] == pytest.approx([expected.low, expected.high])
    assert (found["n"], found["images"]) == (5, 500)
    assert verdict([packed(predicted[0])], labels)["interval"] is None


def test_a_record_is_resumed_and_evaluated_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished seed is not trained again, and an evaluated record is not evaluated again."""
    monkeypatch.setattr(records, "PAGE", tmp_path / "records.md")
    out = tmp_path / "records.json"
    results: dict[str, Any] = {}
    run(Record("perceptron", "random", Scale(1, 2, 300)), results, out, tmp_path)
    first = json.loads(out.read_text())["perceptron random"]
    results["perceptron random"]["test"] = None
    run(Record("perceptron", "random", SMALL), results, out, tmp_path)
    second = json.loads(out.read_text())["perceptron random"]
    run(Record("perceptron", "random", Scale(3, 2, 300)), results, out, tmp_path)

    assert second["seeds"][0] == first["seeds"][0]
    assert (first["test"]["n"], second["test"]["n"]) == (1, 2)
    assert json.loads(out.read_text())["perceptron random"] == second
    assert f"| perceptron | random | – | 92.60 % | 93.00 % | {100 * second['test']['mean']:.2f} %" in page(results)


def test_a_changed_preset_is_trained_again_only_with_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of the earlier preset stay in the file and on the page."""
    monkeypatch.setattr(records, "PAGE", tmp_path / "records.md")
    results: dict[str, Any] = {}
    out, changed = tmp_path / "records.json", Record("perceptron", "random", Scale(2, 3, 300))
    before = run(Record("perceptron", "random", SMALL), results, out, tmp_path)
    with pytest.raises(SystemExit, match=r"perceptron.json has changed since it was trained; use --anew"):
        run(changed, results, out, tmp_path)
    after = run(changed, results, out, tmp_path, anew=True)
    run(changed, results, out, tmp_path, anew=True)

    assert after["earlier"] == [{"spec": before["spec"], "test": before["test"]}]
    assert [seed["seed"] for seed in after["seeds"]] == [0, 1]
    assert after["spec"]["budget"]["epochs"] == 3
    assert json.loads(out.read_text())["perceptron random"] == after
    assert f"- perceptron random: {100 * before['test']['mean']:.2f} % (" in (tmp_path / "records.md").read_text()


@pytest.mark.long
def test_seeds_that_train_in_parallel_equal_those_that_train_in_turn(tmp_path: Path) -> None:
    """They are stored in order of their numbers, not in the order in which they end."""
    in_turn, at_once = dict[str, Any](), dict[str, Any]()
    run(Record("perceptron", "random", SMALL), in_turn, None, tmp_path)
    run(Record("perceptron", "random", SMALL, processes=2), at_once, None, tmp_path)
    found, expected = (each["perceptron random"] for each in (at_once, in_turn))

    assert [_lasting(seed) for seed in found["seeds"]] == [_lasting(seed) for seed in expected["seeds"]]
    assert found["test"] == expected["test"]


def test_a_record_without_a_finished_seed_is_not_evaluated(tmp_path: Path) -> None:
    """The message says what to do first."""
    with pytest.raises(SystemExit, match="run it without --open first"):
        run(Record("cnn", "random", SMALL), {}, None, tmp_path, early=True)


@pytest.mark.parametrize("split", ["random", "official"])
@pytest.mark.parametrize("network", NETWORKS)
def test_every_preset_is_a_spec_of_its_network(network: str, split: str) -> None:
    """It can be posted unchanged; the CNN has the expected 44,426 weights."""
    spec = Record(network, split, Scale()).spec(0)
    layers = spec.layers(spec.network.params.model_validate(spec.params))

    assert spec.model == network
    assert network != "cnn" or parameter_count(layers) == 44_426


@pytest.mark.long
def test_the_quick_form_ends_with_a_row() -> None:
    """It trains two seeds on few images and writes no results."""
    command = [sys.executable, "-m", "benchmarks.records", "cnn", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    (row,) = json.loads(done.stdout.splitlines()[-1])["rows"]

    assert row["work"] == "cnn random"
    assert row["n"] == len(row["seconds"]) == 2
    assert 0 <= row["mean"] <= 1
