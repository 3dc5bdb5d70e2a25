"""The study: the curves of searches, the judge that trains incumbents again, and the loops of the baselines."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from os import sched_yield
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
import torch

from benchmarks.machine import cores
from benchmarks.study import incumbents, sides
from benchmarks.study import judge as judging
from benchmarks.study.curve import curve_of, first_epoch, reached
from benchmarks.study.incumbents import Incumbent, Log
from benchmarks.study.judge import CUTS, Judge
from benchmarks.study.loops import LOOPS, Running, _Trainer
from benchmarks.study.rows import by_first_epoch, by_published, rows_of
from benchmarks.study.searches import DECAY, SEARCHES, data_of
from ml.training.lane import Lane
from ml.training.pack import LanePack

ROOT = Path(__file__).parents[2]
DIGITS = replace(SEARCHES["digits"], model="perceptron", images=300)
PARAMS = {"batch_size": 10, "learning_rate": 1e-3, "optimizer": "adam"}


def curve(*steps: tuple[float, float]) -> list[dict[str, float]]:
    """Return a curve with these times and means."""
    return [{"at": at, "mean": mean, "low": mean, "high": mean} for at, mean in steps]


def run(side: str, seed: int, steps: list[dict[str, float]], limit: float) -> dict[str, Any]:
    """Return a run of the CNN, whose own measurements are a point better than its curve."""
    measured = [{"at": step["at"] / 2, "value": step["mean"] + 0.01} for step in steps]
    return {"work": "CNN", "side": side, "seed": seed, "limit": limit, "curve": steps, "incumbents": measured}


def test_a_curve_reaches_a_target_if_it_stays_there() -> None:
    """A lucky incumbent that is followed by a worse one does not count."""
    lucky = curve((10, 0.97), (20, 0.99), (30, 0.98), (40, 0.991), (50, 0.992))

    assert [reached(lucky, target) for target in (0.95, 0.98, 0.985, 0.995)] == [10, 20, 40, None]


def test_a_step_has_the_mean_over_cuts_and_its_interval() -> None:
    """Student's t with four degrees of freedom is 2.776 at 97.5 %."""
    (step,) = curve_of([{"at": 3.0}], [[0.95, 0.96, 0.97, 0.98, 0.99]])

    assert step == pytest.approx({"at": 3.0, "mean": 0.97, "low": 0.97 - 0.019632, "high": 0.97 + 0.019632}, abs=1e-6)


def test_only_a_better_measurement_is_an_incumbent() -> None:
    """Equal ones are not, and parameters are asked for only if they are needed."""
    log, asked = Log(), []
    for at, (trial, value) in enumerate([(0, 0.5), (1, None), (1, 0.5), (2, 0.4), (0, 0.7)]):
        log.see(float(at), trial, lambda n=trial: asked.append(n) or {"n": n}, 10, value)

    assert [(one.at, one.trial) for one in log.incumbents] == [(0.0, 0), (4.0, 0)]
    assert (asked, log.trials) == ([0, 0], {0, 1, 2})


def test_ratios_divide_the_time_of_each_loop_by_that_of_the_product() -> None:
    """A baseline that missed counts with its limit, and the row says that the ratio is at least that."""
    runs = [
        run("product", 0, curve((10, 0.98), (20, 0.99)), 600),
        run("b", 0, curve((100, 0.985)), 1800),
        run("best", 0, curve((50, 0.985), (60, 0.99)), 1800),
    ]

    low, high = rows_of(SEARCHES["cnn"], runs, by_published)

    assert (low["work"], high["work"]) == ("CNN to 98.5 %", "CNN to 98.9 %")
    assert (low["ratio_b"], low["ratio_best"], low["at_least"]) == (5.0, 2.5, {"b": False, "best": False})
    assert (high["ratio_b"], high["ratio_best"], high["at_least"]) == (90.0, 3.0, {"b": True, "best": False})
    assert (high["n"], high["missed"], high["seconds"]["b"]) == (1, {"product": 0, "b": 1, "best": 0}, None)


def test_there_is_no_ratio_if_most_runs_of_the_product_missed() -> None:
    """One of two misses halves the ratio; two of two leave none."""
    slow, fast = curve((5, 0.9)), curve((5, 0.99))
    loops = [run("b", seed, curve((50, 0.99)), 1800) for seed in (0, 1)]

    missed = rows_of(
        SEARCHES["cnn"], [*loops, run("product", 0, slow, 600), run("product", 1, slow, 600)], by_published
    )
    half = rows_of(SEARCHES["cnn"], [*loops, run("product", 0, slow, 600), run("product", 1, fast, 600)], by_published)

    assert [row["ratio_b"] for row in missed] == [None, None]
    assert [row["ratio_b"] for row in half] == [5.0, 5.0]


def test_the_first_epoch_at_a_target_is_measured_too() -> None:
    """This is the measure of earlier releases, which counts a lucky measurement."""
    found = run("product", 0, curve((10, 0.975), (20, 0.98)), 600)

    assert first_epoch(found["incumbents"], 0.985) == 5.0
    assert [
        row["seconds"]["product"] for row in rows_of(SEARCHES["cnn"], [found, run("b", 0, [], 1)], by_first_epoch)
    ] == [
        5.0,
        10.0,
    ]


def test_an_incumbent_is_trained_again_once_on_each_cut(tmp_path: Path) -> None:
    """Two incumbents of a trial need one training; a judge that starts again needs none."""
    early, late = (Incumbent(1.0, 0, PARAMS, step, 0.9) for step in (3, 20))
    with Judge(tmp_path / "judged.json") as judge:
        first = judge.accuracies(DIGITS, [early, late])
    with Judge(tmp_path / "judged.json") as closed:
        pass
    again = closed.accuracies(DIGITS, [late])  # it could not train any more

    assert [len(cuts) for cuts in first] == [len(CUTS)] * 2
    assert sum(first[1]) > sum(first[0]) > 0
    assert len(set(first[1])) > 1  # cuts differ
    assert again == first[1:]
    assert judging.retrained(DIGITS, PARAMS, [20], CUTS[0]) == {20: first[1][0]}


def test_a_configuration_that_diverges_has_nothing_to_publish() -> None:
    """It counts with an accuracy of 0."""
    params = {**PARAMS, "optimizer": "sgd", "learning_rate": 1e38}

    assert judging.retrained(DIGITS, params, [3, 10], CUTS[0]) == {3: 0.0, 10: 0.0}


@pytest.mark.parametrize("side", list(LOOPS))
def test_the_judge_trains_as_the_loops_do(side: str) -> None:
    """From equal weights and images a lane has the accuracies of the loop, with averaged weights too."""
    torch.set_num_threads(1)
    loop, data = LOOPS[side], data_of("digits", DIGITS.images, 0)
    study, reports = optuna.create_study(), []
    trial = study.ask()
    trainer = _Trainer(DIGITS, data, loop)
    trainer._drawn = lambda trial: PARAMS | ({"ema_decay": DECAY} if loop.averaged else {})
    trainer.objective(trial, False, reports.append)
    spec, params = DIGITS.spec(), reports[0][1]
    pack = LanePack.of(spec, data, spec.params(params), stream_seed=trial.number)
    pack.join(Lane(0, spec, spec.params(params), init_seed=trial.number, stream_seed=trial.number))
    measured = {one.step: one.val_accuracy for rungs in pack.run(lambda: False) for _, one in rungs}

    assert ("ema_decay" in params) == (side == "best")
    for _, _, step, value in reports:
        assert measured[step] == pytest.approx(value, abs=0.04), step  # two of 54 images


def test_a_stopped_clock_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten seconds it was stopped for six."""
    monkeypatch.setattr(incumbents, "perf_counter", iter([100.0, 102.0, 108.0, 110.0]).__next__)
    clock = incumbents.Clock()
    with clock.stopped():
        pass

    assert clock.now() == 4.0


@pytest.mark.soak
def test_the_processes_of_a_loop_can_be_stopped() -> None:
    """Each core has one; they report measurements before and afterwards."""
    with Running(DIGITS, LOOPS["best"], 0, tried=0.01) as running:
        processes = [psutil.Process(process.pid) for process in running._processes]
        first = list(islice(running.messages(60.0), 3))
        with running.stopped():
            while {process.status() for process in processes} != {psutil.STATUS_STOPPED}:
                sched_yield()
        more = list(islice(running.messages(60.0), 3))

    assert len(processes) == cores()
    assert len(first) == len(more) == 3
    assert all(0 <= value <= 1 for *_, value in first + more)
    assert not any(process.is_running() for process in processes)


@pytest.mark.soak
def test_a_baseline_ends_early_once_it_holds_its_target(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The judge looks at what the baseline itself takes to be good."""
    monkeypatch.setattr(sides, "HOLD", 0.1)
    with Judge(tmp_path / "judged.json") as judge:
        found = sides.loop("b", replace(DIGITS, targets=(0.3,)), 0, 120.0, judge)

    assert found.seconds < 60
    assert found.log.incumbents[-1].value >= 0.3
    assert json.loads((tmp_path / "judged.json").read_text())


@pytest.mark.soak
def test_all_sides_of_all_searches_are_measured() -> None:
    """The quick form ends with a row for each target; the ratios are positive if the product reached it."""
    command = [sys.executable, "-m", "benchmarks.study", "--quick", "--minutes", "4"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]

    assert len(rows) == 6
    for found in rows:
        assert (found["ratio_b"] is None) == (found["missed"]["product"] > 0)
        assert found["ratio_b"] is None or found["ratio_b"] > 0
