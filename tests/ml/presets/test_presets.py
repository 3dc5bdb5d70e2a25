"""The presets: files that can be run, with the experiments of the report's table."""

import json
from itertools import product
from typing import Any

import pytest

from ml.errors import UnknownName
from ml.parameters.space import Float, Grid, Int, List
from ml.presets import FOLDER, collection, collections, preset, preset_body, preset_names
from ml.presets.scaling import LEAST_TRIALS, scaled, spread
from ml.specs import TuneSpec

LOW = (1e-5, 1e-4, 1e-3, 1e-2)
HIGH = (0.01, 0.05, 0.1)
WIDTHS = (250, 350, 500, 600)
LISTS = [[width] * layers for layers in (1, 5, 10, 20) for width in WIDTHS]
GRIDS: dict[str, dict[str, Any]] = {  # as the report prints them, except 600 in place of its 6000
    "perceptron": {},
    "shallow-grid": {
        "batch_size": (3, 5, 10),
        "hidden_size": (150, 200, 250, 300),
        "learning_rate": LOW,
        "epochs": (5, 10, 20),
    },
    "shallow-grid-stopped": {"batch_size": (1, 3, 5), "hidden_size": WIDTHS, "learning_rate": LOW},
    "shallow-grid-wide": {"batch_size": (1, 3), "hidden_size": (600, 1200, 1500), "learning_rate": HIGH},
    "mlp-grid-small-batches": {"batch_size": (1, 3, 9), "hidden_sizes": LISTS, "learning_rate": HIGH},
    "mlp-grid-large-batches": {"batch_size": (9, 15, 30), "hidden_sizes": LISTS, "learning_rate": HIGH},
}
SEARCHES = ("shallow-search", "mlp-search", "cnn-search")
REPORT = {experiment.name: experiment.spec for experiment in collection("mnist-report").experiments}


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_a_valid_specification(name: str) -> None:
    """Validation keeps every field of the file."""
    kept, body = preset(name).model_dump(), preset_body(name)

    assert body.keys() <= kept.keys()
    assert kept["model"] == body["model"]


def test_the_error_for_an_unknown_preset_lists_the_known_ones() -> None:
    """A name that leads out of the folder is unknown too."""
    for name in ("nothing", "../presets/collections", "mnist-report/../mnist-report/cnn-search"):
        with pytest.raises(UnknownName, match="mnist-report/cnn-search"):
            preset(name)


def test_a_collection_has_every_file_of_its_folder() -> None:
    """No experiment is missing, and each has a file."""
    for name, found in collections().items():
        assert {e.name for e in found.experiments} == {path.stem for path in (FOLDER / name).glob("*.json")}


@pytest.mark.parametrize("name", GRIDS)
def test_a_grid_tries_the_points_of_the_report(name: str) -> None:
    """It tries every combination of the printed values, with mean squared error and without pruning."""
    spec, printed = REPORT[name], GRIDS[name]
    points = len(list(product(*printed.values())))
    grids = {n: tuple(d.values) for n, d in spec.search_space.items() if isinstance(d, Grid)}

    assert grids == {n: tuple(values) for n, values in printed.items()}
    assert spec.trial_limit == points
    assert (spec.loss, spec.sampler.name, spec.pruner.name) == ("mse", "grid", "none")


def test_the_grids_have_as_many_points_as_counted_by_hand() -> None:
    """They have 1, 3·4·4·3, 3·4·4, 2·3·3, and twice 3·(4·4)·3 points."""
    assert [REPORT[name].trial_limit for name in GRIDS] == [1, 144, 48, 18, 144, 144]


@pytest.mark.parametrize("name", [name for name in GRIDS if name.endswith(("stopped", "wide", "batches"))])
def test_early_stopping_is_that_of_the_report(name: str) -> None:
    """It compares with the previous epoch, and nothing restores patience."""
    found = REPORT[name].early_stopping

    assert found is not None
    assert (found.rule, found.patience, found.min_delta) == ("previous", 2, 0.001)


def test_the_searches_have_the_reports_ranges_and_trials() -> None:
    """They search batches of 3 to 100, rates of 1e-5 to 1e-1 on a log scale, Adam or SGD, and each network's widths."""
    for name in SEARCHES:
        space = REPORT[name].search_space
        assert space["batch_size"] == Int(low=3, high=100)
        assert space["learning_rate"] == Float(low=1e-5, high=1e-1, log=True)
        assert set(space["optimizer"].corners()) == {"adam", "sgd"}

    assert REPORT["shallow-search"].search_space["hidden_size"] == Int(low=500, high=2000)
    widths = List(length=Int(low=2, high=10), items=Int(low=200, high=1000))
    assert REPORT["mlp-search"].search_space["hidden_sizes"] == widths
    assert [REPORT[name].budget.trials for name in SEARCHES] == [1000, 133, 956]
    assert list(REPORT) == [*GRIDS, *SEARCHES]


@pytest.mark.parametrize("scale", [1e-9, 0.01, 0.3, 0.9])
@pytest.mark.parametrize("name", REPORT)
def test_a_scaled_experiment_tries_every_parameter_over_its_range(name: str, scale: float) -> None:
    """No limit is larger than in the whole experiment; a grid keeps both ends of each parameter."""
    whole, small = REPORT[name], scaled(REPORT[name], scale)
    grids = {n: d for n, d in whole.search_space.items() if isinstance(d, Grid)}

    assert small.images is not None
    assert small.images < 63_000
    assert small.trial_limit <= whole.trial_limit
    assert small.budget.epochs <= whole.budget.epochs
    for parameter, dimension in grids.items():
        kept = small.search_space[parameter].corners()
        assert 2 <= len(kept) <= len(dimension.values)
        assert parameter == "epochs" or (kept[0], kept[-1]) == (dimension.values[0], dimension.values[-1])
    assert {n: d for n, d in small.search_space.items() if n not in grids} == {
        n: d for n, d in whole.search_space.items() if n not in grids
    }
    assert TuneSpec.model_validate(json.loads(small.model_dump_json())) == small


def test_a_scale_multiplies_images_and_trials() -> None:
    """They never fall below their minimum, and a scale of 1 changes nothing."""
    spec = REPORT["cnn-search"]
    half, least = scaled(spec, 0.5), scaled(spec, 1e-6)

    assert (half.images, half.budget.trials, half.budget.epochs, half.budget.seconds) == (31_500, 478, 10, 5400.0)
    assert (least.images, least.budget.trials) == (150, LEAST_TRIALS)
    assert scaled(spec, 1) is spec


def test_a_spread_is_even() -> None:
    """It has the first, the last, and values at equal distances; a single value stays."""
    assert spread(range(16), 4) == [0, 5, 10, 15]
    assert spread([7], 5) == [7]
    assert spread([1, 2, 3], 1) == [1, 3]
