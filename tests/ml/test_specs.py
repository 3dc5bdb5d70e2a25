"""TrainSpec and TuneSpec: accepted specifications can be trained, and refusals name the field."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from ml.datasets import DatasetInfo
from ml.errors import SpecError
from ml.parameters.space import MAX_GRID
from ml.presets.scaling import scaled
from ml.registry import Registry
from ml.specs import MAX_TRIALS, TrainSpec, TuneSpec
from ml.tuning.search import Search

# Optuna warns of the argument `group` for each new TPE sampler; ml ignores the warning, but pytest shows it again.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

DESIGN = """
{"model": "cnn", "dataset": "mnist",
 "search_space": {"batch_size": {"type": "int", "low": 3, "high": 100},
                  "learning_rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": true},
                  "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]}},
 "sampler": {"name": "tpe"}, "pruner": {"name": "hyperband"},
 "early_stopping": {"patience": 2, "min_delta": 0.001},
 "budget": {"trials": 956, "seconds": 10800, "epochs": 20}, "objective": "val_accuracy", "seed": 0}
"""
WIDTHS = {
    "type": "list",
    "length": {"type": "int", "low": 2, "high": 10},
    "items": {"type": "int", "low": 200, "high": 1000},
}
GRID = {"batch_size": {"type": "grid", "values": [3, 5, 10]}}
Path = tuple[str | int, ...]


def _paths(kind: type[TrainSpec] | type[TuneSpec], body: Any) -> list[Path]:
    """Return the paths of the problems of a body, or an empty list if it is accepted."""
    try:
        kind.model_validate(body)
    except SpecError as error:
        return [problem.path for problem in error.problems]
    except ValidationError as error:
        return [problem["loc"] for problem in error.errors()]
    return []


def _covers(written: Any, kept: Any) -> bool:
    """Return whether everything written is kept; defaults may be added."""
    if isinstance(written, dict):
        return isinstance(kept, dict) and all(name in kept and _covers(written[name], kept[name]) for name in written)
    return bool(written == kept)


# --- accepted bodies


@pytest.mark.parametrize(
    "body",
    [
        json.loads(DESIGN),
        {"model": "mlp", "search_space": {"hidden_sizes": WIDTHS}},
        {"model": "shallow", "search_space": GRID, "sampler": {"name": "grid"}, "budget": {"epochs": 3}},
        {"model": "perceptron", "dataset": "digits", "budget": {"seconds": 0.5}, "loss": "mse"},
        {"model": "cnn", "split": "official", "objective": "val_loss", "seed": 2**32 - 1},
        {"model": "mlp", "search_space": {"hidden_sizes": [64, 32], "learning_rate": 1, "optimizer": "sgd"}},
    ],
)
def test_a_tuning_job_survives_json(body: dict[str, Any]) -> None:
    """A valid body is kept as JSON with all that was written, and read back equal."""
    spec = TuneSpec.model_validate(body)
    kept = json.loads(json.dumps(spec.model_dump(mode="json"), allow_nan=False))

    assert _covers(body, kept)
    assert TuneSpec.model_validate(kept) == spec
    assert TuneSpec.model_validate_json(spec.model_dump_json()) == spec


@pytest.mark.parametrize(
    "body",
    [
        {"model": "cnn"},
        {"model": "mlp", "params": {"hidden_sizes": [977, 878], "batch_size": 4, "learning_rate": 5e-5}},
        {"model": "shallow", "params": {"hidden_size": 1685}, "budget": {"epochs": 3}, "early_stopping": {}},
    ],
)
def test_a_training_job_survives_json(body: dict[str, Any]) -> None:
    """A valid body is kept as JSON with all that was written, and read back equal."""
    spec = TrainSpec.model_validate(body)
    kept = json.loads(json.dumps(spec.model_dump(mode="json"), allow_nan=False))

    assert _covers(body, kept)
    assert TrainSpec.model_validate(kept) == spec


def test_the_largest_network_of_the_report_is_allowed() -> None:
    """Ten layers of up to a thousand units, the report's own space, can be searched."""
    body = {"model": "mlp", "search_space": {"hidden_sizes": WIDTHS}}

    assert _paths(TuneSpec, body) == []


def test_a_data_set_is_looked_up_by_the_callers_function() -> None:
    """The specification keeps the description found, and JSON the name with its version."""
    letters = DatasetInfo("letters@2", (1, 8, 8), ("a", "b"), 400, "0" * 64, None, "")
    known: Registry[DatasetInfo] = Registry("data set")
    known.register("letters")(letters)
    body = {"model": "mlp", "dataset": "letters", "params": {"batch_size": 8}}
    train = TrainSpec.of(body, known.__getitem__)
    tune = TuneSpec.of({"model": "mlp", "dataset": "letters"}, known.__getitem__)

    assert train.as_tune().dataset is letters
    assert scaled(tune, 0.9).dataset is letters
    assert tune.model_dump(mode="json")["dataset"] == "letters@2"
    assert tune.layers(tune.network.params())[-1].weights()["bias"] == (2,)
    assert tune.training_images == 288
    assert _paths(TuneSpec, {"model": "mlp", "dataset": "letters"}) == [("dataset",)]


def test_a_spec_cannot_be_changed() -> None:
    """A specification stays as it was checked."""
    spec = TuneSpec.model_validate_json(DESIGN)

    with pytest.raises(ValidationError, match="frozen"):
        spec.seed = 1  # type: ignore[misc]


# --- refused bodies

SHARED: list[tuple[dict[str, Any], Path]] = [
    ({"model": "resnet"}, ("model",)),
    ({"model": 3}, ("model",)),
    ({"model": "x" * 101}, ("model",)),
    ({"dataset": "imagenet"}, ("dataset",)),
    ({"dataset": None}, ("dataset",)),
    ({"dataset": "digits", "split": "official"}, ("split",)),
    ({"split": "half"}, ("split",)),
    ({"loss": "hinge"}, ("loss",)),
    ({"objective": "test_accuracy"}, ("objective",)),
    ({"seed": -1}, ("seed",)),
    ({"seed": 2**32}, ("seed",)),
    ({"seed": 0.5}, ("seed",)),
    ({"seed": "0"}, ("seed",)),
    ({"early_stopping": {"patience": 0}}, ("early_stopping", "patience")),
    ({"early_stopping": True}, ("early_stopping",)),
    ({"budget": {"epochs": 0}}, ("budget", "epochs")),
    ({"budget": {"epochs": -3}}, ("budget", "epochs")),
    ({"budget": {"epochs": 1001}}, ("budget", "epochs")),
    ({"budget": {"epochs": None}}, ("budget", "epochs")),
    ({"budget": {"seconds": 0}}, ("budget", "seconds")),
    ({"budget": {"seconds": -1}}, ("budget", "seconds")),
    ({"budget": {"seconds": float("inf")}}, ("budget", "seconds")),
    ({"budget": {"seconds": float("nan")}}, ("budget", "seconds")),
    ({"budget": {"seconds": 10**400}}, ("budget", "seconds")),
    ({"budget": {"hours": 3}}, ("budget", "hours")),
    ({"budget": None}, ("budget",)),
    ({"colour": "blue"}, ("colour",)),
]
TUNE: list[tuple[dict[str, Any], Path]] = [
    ({"sampler": {"name": "cmaes"}}, ("sampler",)),
    ({"sampler": {}}, ("sampler",)),
    ({"sampler": "tpe"}, ("sampler",)),
    ({"sampler": {"name": "tpe", "n_startup_trials": 0}}, ("sampler", "tpe", "n_startup_trials")),
    ({"sampler": {"name": "random", "n_startup_trials": 5}}, ("sampler", "random", "n_startup_trials")),
    ({"pruner": {"name": "threshold"}}, ("pruner",)),
    ({"pruner": None}, ("pruner",)),
    ({"pruner": {"name": "hyperband", "reduction_factor": 1}}, ("pruner", "hyperband", "reduction_factor")),
    ({"pruner": {"name": "hyperband", "min_epochs": 0.25}}, ("pruner", "hyperband", "min_epochs")),
    ({"pruner": {"name": "hyperband", "min_epochs": 0}}, ("pruner", "hyperband", "min_epochs")),
    ({"pruner": {"name": "hyperband", "min_epochs": 1001}}, ("pruner", "hyperband", "min_epochs")),
    ({"pruner": {"name": "hyperband", "min_epochs": True}}, ("pruner", "hyperband", "min_epochs")),
    ({"pruner": {"name": "hyperband", "min_epochs": "1"}}, ("pruner", "hyperband", "min_epochs")),
    ({"pruner": {"name": "hyperband", "min_epochs": 10**400}}, ("pruner", "hyperband", "min_epochs")),
    ({"pruner": {"name": "successive_halving", "min_epochs": 0.05}}, ("pruner", "successive_halving", "min_epochs")),
    ({"pruner": {"name": "median", "n_warmup_epochs": 0.5}}, ("pruner", "median", "n_warmup_epochs")),
    ({"budget": {}}, ("budget",)),
    ({"budget": {"epochs": 5}}, ("budget",)),
    ({"budget": {"trials": 0}}, ("budget", "trials")),
    ({"budget": {"trials": -5}}, ("budget", "trials")),
    ({"budget": {"trials": MAX_TRIALS + 1}}, ("budget", "trials")),
    ({"budget": {"trials": 2.5}}, ("budget", "trials")),
    ({"params": {"batch_size": 3}}, ("params",)),
    ({"search_space": []}, ("search_space",)),
]
DIMENSIONS: list[tuple[str, Any]] = [
    ("sharpness", 0.5),
    ("hidden_size", {"type": "int", "low": 3, "high": 5}),  # of another network
    ("batch_size", {"type": "int", "low": 0, "high": 100}),
    ("batch_size", {"type": "int", "low": 1, "high": 4097}),
    ("batch_size", {"type": "int", "low": 100, "high": 3}),
    ("batch_size", {"type": "float", "low": 1.0, "high": 3.0}),
    ("batch_size", {"type": "categorical", "choices": []}),
    ("batch_size", {"type": "categorical", "choices": [3, 5, 3]}),
    ("batch_size", {"type": "categorical", "choices": [3, "five"]}),
    ("batch_size", {"type": "normal"}),
    ("batch_size", 0),
    ("batch_size", 3.5),
    ("batch_size", "3"),
    ("batch_size", True),
    ("batch_size", None),
    ("batch_size", [3, 5]),
    ("batch_size", {"type": "grid", "values": [3, 5]}),  # with the tpe sampler
    ("learning_rate", {"type": "float", "low": 0.0, "high": 0.1}),
    ("learning_rate", {"type": "float", "low": 0.0, "high": 0.1, "log": True}),
    ("learning_rate", {"type": "float", "low": 0.1, "high": 1e-5, "log": True}),
    ("learning_rate", {"type": "float", "low": 0.1, "high": float("inf")}),
    ("learning_rate", {"type": "float", "low": float("nan"), "high": 0.1}),
    ("learning_rate", float("nan")),
    ("learning_rate", -0.1),
    ("learning_rate", 10**400),
    ("momentum", 1.0),
    ("weight_decay", -1e-9),
    ("optimizer", "rmsprop"),
    ("optimizer", {"type": "categorical", "choices": ["adam", "rmsprop"]}),
    ("epochs", 0),
    ("hidden_sizes", []),
    ("hidden_sizes", [0]),
    ("hidden_sizes", [16_385]),
    ("hidden_sizes", [10] * 65),
    ("hidden_sizes", [16_384, 16_384]),  # 281 million weights
    ("hidden_sizes", 64),
    (
        "hidden_sizes",
        WIDTHS | {"length": {"type": "int", "low": 2, "high": 64}, "items": {"type": "int", "low": 1, "high": 1000}},
    ),
    ("hidden_sizes", WIDTHS | {"length": {"type": "int", "low": 0, "high": 3}}),
    ("hidden_sizes", WIDTHS | {"items": {"type": "float", "low": 1.0, "high": 9.0}}),
]


@pytest.mark.parametrize(("wrong", "path"), [*SHARED, *TUNE], ids=lambda value: str(value)[:50])
def test_a_tuning_job_that_cannot_run_is_refused_by_name(wrong: dict[str, Any], path: Path) -> None:
    """Each wrong field is refused, and the problem's path leads to it."""
    found = _paths(TuneSpec, {"model": "mlp", "search_space": {"batch_size": 3}, "budget": {"trials": 3}} | wrong)

    assert any(problem[: len(path)] == path for problem in found), found


@pytest.mark.parametrize(("wrong", "path"), SHARED, ids=lambda value: str(value)[:50])
def test_a_training_job_that_cannot_run_is_refused_by_name(wrong: dict[str, Any], path: Path) -> None:
    """Each wrong field is refused, and the problem's path leads to it."""
    found = _paths(TrainSpec, {"model": "mlp"} | wrong)

    assert any(problem[: len(path)] == path for problem in found), found


@pytest.mark.parametrize(("name", "dimension"), DIMENSIONS, ids=lambda value: str(value)[:50])
def test_a_dimension_that_does_not_fit_is_refused_by_name(name: str, dimension: Any) -> None:
    """A dimension that the network, its parameters or the sampler cannot take is refused under its name."""
    found = _paths(TuneSpec, {"model": "mlp", "search_space": {name: dimension}})

    assert any(problem[:2] == ("search_space", name) for problem in found), found


@pytest.mark.parametrize(
    ("name", "value"), [(n, d) for n, d in DIMENSIONS if not isinstance(d, dict)], ids=lambda value: str(value)[:50]
)
def test_a_parameter_that_does_not_fit_is_refused_by_name(name: str, value: Any) -> None:
    """A value that no search space may fix is refused as a parameter of a training job too."""
    found = _paths(TrainSpec, {"model": "mlp", "params": {name: value}})

    # If the whole network is too large, the error names all parameters together.
    assert any(problem[:2] in (("params", name), ("params",)) for problem in found), found


@pytest.mark.parametrize("field", ["trials", "params"])
def test_a_training_job_has_one_trial(field: str) -> None:
    """A training job takes no number of trials and no more than a hundred parameters."""
    wrong = {"budget": {"trials": 2}} if field == "trials" else {"params": {str(n): n for n in range(101)}}

    assert _paths(TrainSpec, {"model": "mlp"} | wrong)


def test_all_problems_are_reported_at_once() -> None:
    """Two unknown names are two problems, and two dimensions that do not fit are two more."""
    names = _paths(TuneSpec, {"model": "resnet", "dataset": "imagenet", "search_space": {"batch_size": 3}})
    space = _paths(TuneSpec, {"model": "mlp", "search_space": {"batch_size": 0, "sharpness": 1, "epochs": 3}})

    assert names == [("model",), ("dataset",)]
    assert space == [("search_space", "batch_size"), ("search_space", "sharpness")]


def test_a_problem_says_what_is_allowed() -> None:
    """The error lists the known parameters."""
    with pytest.raises(SpecError, match=r"search_space\.sharpness: .*batch_size, learning_rate.*hidden_sizes"):
        TuneSpec.model_validate({"model": "mlp", "search_space": {"sharpness": 0.5}})


def test_a_first_rung_between_two_tenths_is_refused_with_a_reason() -> None:
    """The error says which numbers are accepted."""
    with pytest.raises(ValidationError, match=r"give a multiple of 0\.1"):
        TuneSpec.model_validate({"model": "mlp", "pruner": {"name": "hyperband", "min_epochs": 0.25}})


@pytest.mark.parametrize("model", [["cnn"], {}, None, 3, True])
def test_a_model_that_is_no_name_is_refused_without_a_space(model: Any) -> None:
    """Without a space the model is looked up early; any JSON that is not a name is refused by its path."""
    assert _paths(TuneSpec, {"model": model}) == [("model",)]


# --- the grid

LARGE = list(range(1, 401))


@pytest.mark.parametrize(
    ("space", "path"),
    [
        ({"batch_size": {"type": "int", "low": 3, "high": 5}}, ("search_space", "batch_size")),
        ({"learning_rate": {"type": "float", "low": 0.1, "high": 0.5}}, ("search_space", "learning_rate")),
        ({"hidden_sizes": WIDTHS}, ("search_space", "hidden_sizes")),
        ({n: {"type": "grid", "values": LARGE} for n in ("batch_size", "epochs")}, ("search_space",)),
    ],
)
def test_a_grid_with_a_range_or_too_many_points_is_refused(space: dict[str, Any], path: Path) -> None:
    """The grid sampler accepts no range, and at most MAX_GRID points."""
    found = _paths(TuneSpec, {"model": "mlp", "search_space": space, "sampler": {"name": "grid"}})

    assert len(LARGE) ** 2 > MAX_GRID
    assert path in found


@pytest.mark.parametrize(
    ("budget", "limit"), [({"epochs": 2}, 6), ({"trials": 4}, 4), ({"trials": 9}, 6), ({"seconds": 5}, 6)]
)
def test_a_grid_ends_with_its_last_point(budget: dict[str, Any], limit: int) -> None:
    """A grid needs no budget: it ends after its points, or after the trials if they are fewer."""
    space = GRID | {"optimizer": {"type": "categorical", "choices": ["adam", "sgd"]}, "learning_rate": 0.1}
    body = {"model": "cnn", "search_space": space, "sampler": {"name": "grid"}, "budget": budget}

    assert TuneSpec.model_validate(body).trial_limit == limit


def test_without_a_number_of_trials_only_seconds_limit_a_job() -> None:
    """Such a job may begin as many trials as the largest number that a job may name."""
    assert TuneSpec.model_validate({"model": "cnn", "budget": {"seconds": 60}}).trial_limit == MAX_TRIALS


# --- a training job as a tuning job


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("cnn", {}),
        ("cnn", {"batch_size": 3, "learning_rate": 2e-4, "optimizer": "adam", "weight_decay": 0}),
        ("mlp", {"hidden_sizes": [977, 878], "epochs": 4}),
        ("shallow", {"hidden_size": 5, "optimizer": "sgd", "momentum": 0.9}),
        ("mlp", {"epochs": None}),
    ],
)
def test_a_training_job_is_a_tuning_job_of_one_trial(model: str, params: dict[str, Any]) -> None:
    """`as_tune` gives one trial with exactly the requested parameters, the same budget and no pruning."""
    common = {"dataset": "digits", "loss": "mse", "objective": "val_loss", "seed": 9, "early_stopping": {"patience": 5}}
    body = {"model": model, "params": params, "budget": {"seconds": 30, "epochs": 7}} | common
    spec = TrainSpec.model_validate(body)
    tune = spec.as_tune()

    assert Search(tune).ask(0)[0] == spec.network.params.model_validate(params)
    assert tune.trial_limit == 1
    assert tune.pruner.name == "none"
    assert (tune.budget.seconds, tune.budget.epochs) == (30, 7)
    assert _covers(common, tune.model_dump())


@pytest.mark.parametrize(("asked", "epochs"), [(None, 7), (3, 3), (7, 7), (1000, 7)])
def test_a_trials_epochs_are_capped_by_the_budget(asked: int | None, epochs: int) -> None:
    """A trial lasts as long as its own parameter says, never longer than the budget."""
    spec = TuneSpec.model_validate({"model": "cnn", "budget": {"trials": 1, "epochs": 7}})

    assert spec.epochs(spec.params({} if asked is None else {"epochs": asked})) == epochs


@pytest.mark.parametrize(("asked", "rungs"), [(None, (3, 9, 10, 20, 30)), (1, (3, 9, 10)), (2, (3, 9, 10, 20))])
def test_a_trial_is_measured_until_its_own_last_epoch(asked: int | None, rungs: tuple[int, ...]) -> None:
    """A trial's rungs are the pruner's, up to the trial's own epochs."""
    pruner = {"name": "hyperband", "min_epochs": 0.3}
    spec = TuneSpec.model_validate({"model": "cnn", "pruner": pruner, "budget": {"trials": 1, "epochs": 3}})

    assert spec.rungs(spec.params({} if asked is None else {"epochs": asked})) == rungs


# --- any body

scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5))
junk = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
)


def _places(body: Any, path: Path = ()) -> list[Path]:
    """Return every path below the root of a JSON value."""
    children = body.items() if isinstance(body, dict) else enumerate(body) if isinstance(body, list) else ()
    return [path, *(place for key, child in children for place in _places(child, (*path, key)))]


@pytest.mark.filterwarnings("ignore:The distribution is specified by")
@settings(deadline=None, max_examples=300)
@given(place=st.sampled_from(_places(json.loads(DESIGN))[1:]), value=junk)
def test_any_body_is_accepted_or_refused(place: Path, value: Any) -> None:
    """With any JSON in the place of one field, a job is refused by name, or can draw its first trial."""
    body = json.loads(DESIGN)
    target = body
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    paths = _paths(TuneSpec, body)
    if not paths:
        Search(TuneSpec.model_validate(body)).ask(0)

    assert all(path[:1] == place[:1] for path in paths), (place, paths)
