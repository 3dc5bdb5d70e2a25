"""Figures: each plot, for searches of every size, compared with the trials."""

import json
import time
from dataclasses import replace
from typing import Any, get_args

import optuna
import orjson
import pytest
from scipy import stats
from support.searched import SPACE, reached, searched

from ml.analysis.figures import OF_OBSERVATIONS, figure, figures
from ml.analysis.observations import ENDED, Observation
from ml.analysis.pareto import Cost, Point, front
from ml.analysis.plots import PLOTS, PlotName, PlotOptions
from ml.records import TrialRecord, TrialState

TRIALS = 24


def drawn(name: str, trials: int = TRIALS, **options: Any) -> dict[str, Any]:
    """Return a figure as JSON that any client can read."""
    search = searched(trials)
    made = orjson.dumps(figure(name, search, reached(search, trials), PlotOptions(**options)))
    found: dict[str, Any] = json.loads(made, parse_constant=pytest.fail)
    return found


def test_every_plot_that_is_offered_can_be_drawn() -> None:
    """The API's list, its type and the functions name the same plots."""
    assert list(PLOTS) == list(get_args(PlotName))
    assert set(PLOTS) == {*figures, *OF_OBSERVATIONS}


@pytest.mark.parametrize("name", PLOTS)
def test_a_figure_has_data_and_a_title(name: str) -> None:
    """This holds for every plot of a search with trials."""
    found = drawn(name)

    assert found["data"]
    assert found["layout"]["title"]["text"]


@pytest.mark.parametrize("trials", [0, 1, 2])
@pytest.mark.parametrize("name", PLOTS)
def test_a_search_with_few_trials_has_a_figure_too(name: str, trials: int) -> None:
    """A figure without data says why."""
    found = drawn(name, trials)

    assert found["data"] or found["layout"]["annotations"][0]["text"]


def test_parallel_coordinates_show_only_trials_above_an_accuracy() -> None:
    """There is one line for each trial that reached the accuracy."""
    search = searched(TRIALS)
    trials = [trial for trial in reached(search, TRIALS) if trial.state in ENDED]
    above = [trial for trial in trials if (trial.val_accuracy or 0) >= 0.9]
    found = drawn("parallel_coordinate", min_accuracy=0.9)["data"]
    lines = [dict(line["customdata"]) for line in found if line["mode"] == "lines"]
    rates = [line["learning_rate"] for line in lines]

    assert 0 < len(above) < len(trials)
    assert sorted(rates) == sorted(f"{trial.params['learning_rate']:.3g}" for trial in above)


def test_a_slice_of_time_shows_each_trials_seconds() -> None:
    """There is one point for each trial that ran to its end, at its parameter."""
    search = searched(TRIALS)
    trials = [trial for trial in reached(search, TRIALS) if trial.state in ENDED]
    (points,) = [trace for trace in drawn("slice", target="seconds")["data"] if trace["xaxis"] == "x2"]

    assert sorted(zip(points["x"], points["y"], strict=True)) == sorted(
        (trial.params["hidden_size"], trial.seconds) for trial in trials
    )


@pytest.mark.parametrize("cost", get_args(Cost))
def test_the_plotted_pareto_front_equals_the_services(cost: str) -> None:
    """Optuna marks the trials of ml.analysis.pareto; pruned trials with a known cost are shown too."""
    search = searched(TRIALS)
    trials = reached(search, TRIALS)
    costs = {trial.number: getattr(trial, cost) for trial in trials}
    known = [trial for trial in trials if costs[trial.number] is not None]
    expected = front([Point(t.number, t.val_accuracy or 0, costs[t.number]) for t in known])
    *others, best = drawn("pareto_front", cost=cost)["data"]

    assert sorted(best["x"]) == sorted(costs[number] for number in expected)
    assert len(best["x"]) + sum(len(trace["x"]) for trace in others) == len(known)


def test_a_trial_that_diverged_is_on_no_front() -> None:
    """It has no value, even if it was accurate before, and none of its weights can be published."""
    search = searched(TRIALS + 1)
    trials = reached(search, TRIALS)
    search.ask(TRIALS)
    search.apply(TrialRecord(TRIALS, TrialState.DIVERGED))
    diverged = replace(trials[0], number=TRIALS, state=TrialState.DIVERGED, val_accuracy=0.999, seconds=1e-3)
    made = figure("pareto_front", search, [*trials, diverged], PlotOptions(cost="seconds"))
    shown = [x for trace in made["data"] for x in trace["x"]]

    assert len(shown) == TRIALS
    assert 1e-3 not in shown


@pytest.mark.parametrize("coefficient", ["pearson", "spearman"])
def test_correlations_are_shown_with_their_p_values(coefficient: str) -> None:
    """Coefficients and p-values equal SciPy's; each comes with its number of observations."""
    (heat,) = drawn("correlations", coefficient=coefficient)["data"]
    search = searched(TRIALS)
    ended = [t for t in reached(search, TRIALS) if t.state in ENDED]
    x, y = [t.params["learning_rate"] for t in ended], [t.val_accuracy for t in ended]
    expected = getattr(stats, {"pearson": "pearsonr", "spearman": "spearmanr"}[coefficient])(x, y)
    row, column = heat["y"].index("learning_rate"), heat["x"].index("val_accuracy")

    assert heat["z"][row][column] == pytest.approx(expected.statistic)
    assert heat["customdata"][row][column] == pytest.approx((len(ended), expected.pvalue))


def test_the_most_significant_interaction_is_shown() -> None:
    """The figure names its two parameters, and has the mean and the number of trials of each cell."""
    found = drawn("interactions")
    (heat,) = found["data"]

    assert " and " in found["layout"]["title"]["text"]
    assert {found["layout"]["xaxis"]["title"]["text"], found["layout"]["yaxis"]["title"]["text"]} < set(
        searched(1).spec.search_space
    )
    assert (len(heat["z"]), len(heat["z"][0])) == (len(heat["y"]), len(heat["x"]))
    assert sum(map(sum, heat["customdata"])) <= TRIALS


def test_learning_curves_are_by_epoch_and_keep_the_numbers_of_their_trials() -> None:
    """Each trial has two rungs, at epochs 1 and 2."""
    found = drawn("intermediate_values", 5)["data"]

    assert [trace["name"] for trace in found] == [f"Trial{number}" for number in range(5)]
    assert all(trace["x"] == [1, 2] for trace in found)


def test_a_search_with_many_parameters_shows_the_most_important() -> None:
    """There are at most sixteen panels."""
    found = drawn("contour")

    assert sum(name.startswith("xaxis") for name in found["layout"]) <= 16
    assert optuna.__version__.startswith("5")


def test_the_parameters_that_matter_for_the_target_are_shown() -> None:
    """The time depends on width and batch, the accuracy on the learning rate."""
    share = {"type": "float", "low": 0.0, "high": 0.1}
    shares = dict.fromkeys(("label_smoothing", "ema_decay", "shift", "shear"), share)
    search = searched(100, {**SPACE, **shares})
    trials = reached(search, 100)
    shown = {}
    for target in ("seconds", "val_accuracy"):
        layout = figure("contour", search, trials, PlotOptions(target=target))["layout"]
        shown[target] = {axis["title"]["text"] for name, axis in layout.items() if "axis" in name and "title" in axis}

    assert {"batch_size", "hidden_size"} <= shown["seconds"]
    assert "learning_rate" in shown["val_accuracy"]
    assert {len(names) for names in shown.values()} == {4}


def test_the_timeline_is_right_in_any_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A running trial's bar ends now, in any time zone; a trial cancelled before its draw has no bar."""
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        search = searched(6)
        ago = time.time() - 100
        trials = [replace(trial, began=ago, ended=ago + 20) for trial in reached(search, 4)]
        _, record = search.ask(4)
        search.apply(record)
        search.apply(TrialRecord(5, TrialState.CANCELLED))
        running = Observation(4, TrialState.RUNNING, {}, began=ago + 70)
        bars = figure("timeline", search, [*trials, running], PlotOptions())["data"]
    finally:
        monkeypatch.undo()
        time.tzset()

    lengths = [length for bar in bars for length in bar["x"]]
    assert len(lengths) == 5
    assert min(lengths) > 0
    assert {bar["name"]: list(bar["x"]) for bar in bars}["RUNNING"] == [pytest.approx(30_000, abs=25_000)]
