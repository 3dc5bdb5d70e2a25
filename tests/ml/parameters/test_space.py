"""The search-space grammar: accepted spaces can be drawn from, and draws can be trained."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from ml.parameters.params import Params
from ml.parameters.space import Dimension, Fixed, Float, Grid, Int, List, SearchSpace, grid_size, grid_values
from ml.specs import TuneSpec
from ml.tuning.search import Search

# Optuna warns of the argument `group` for each new TPE sampler; ml ignores the warning, but pytest shows it again.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

dimensions: TypeAdapter[Any] = TypeAdapter(Dimension)
spaces: TypeAdapter[SearchSpace] = TypeAdapter(SearchSpace)

INT: dict[str, Any] = {"type": "int", "low": 3, "high": 100}
FLOAT: dict[str, Any] = {"type": "float", "low": 1e-5, "high": 1e-1}
LIST: dict[str, Any] = {"type": "list", "length": {"type": "int", "low": 2, "high": 10}, "items": INT}


def _refusals(dimension: Any) -> list[str]:
    """Return the problems of a dimension, and fail the test if it has none."""
    with pytest.raises(ValidationError) as caught:
        dimensions.validate_python(dimension)
    return [f"{'.'.join(map(str, error['loc']))}: {error['msg']}" for error in caught.value.errors()]


# --- the grammar


@pytest.mark.parametrize(
    ("written", "kind"),
    [
        (INT, Int),
        (INT | {"step": 4}, Int),
        (INT | {"log": True}, Int),
        (FLOAT, Float),
        (FLOAT | {"log": True}, Float),
        (FLOAT | {"step": 0.01}, Float),
        (FLOAT | {"low": 1, "high": 1}, Float),
        (LIST, List),
        (LIST | {"items": FLOAT}, List),
        (LIST | {"items": {"type": "categorical", "choices": [16, 32]}}, List),
        ({"type": "grid", "values": [3, 5, 10]}, Grid),
        (0.5, Fixed),
        (True, Fixed),
        ("adam", Fixed),
        ([64, 32], Fixed),
    ],
)
def test_every_kind_of_dimension_survives_json(written: Any, kind: type) -> None:
    """Each way to write a dimension is understood, and comes back equal from a job's JSON."""
    dimension = dimensions.validate_python(written)
    kept = json.loads(json.dumps(dimensions.dump_python(dimension, mode="json"), allow_nan=False))

    assert isinstance(dimension, kind)
    assert dimensions.validate_python(kept) == dimension


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (INT | {"low": 101}, "int: "),
        (FLOAT | {"low": 1.0}, "float: "),
        (INT | {"low": 0, "log": True}, "int: "),
        (FLOAT | {"low": 0.0, "log": True}, "float: "),
        (FLOAT | {"low": -1.0, "log": True}, "float: "),
        (INT | {"step": 2, "log": True}, "int: "),
        (FLOAT | {"step": 0.5, "log": True}, "float: "),
        (INT | {"step": 0}, "int.step: "),
        (FLOAT | {"step": 0.0}, "float.step: "),
        (INT | {"low": 3.5}, "int.low: "),
        (INT | {"low": "3"}, "int.low: "),
        (INT | {"low": True}, "int.low: "),
        (INT | {"low": None}, "int.low: "),
        (FLOAT | {"low": float("nan")}, "float.low: "),
        (FLOAT | {"high": float("inf")}, "float.high: "),
        (FLOAT | {"high": 10**400}, "float.high: "),
        (INT | {"high": 2**53 + 1}, "int.high: "),
        (INT | {"log": 1}, "int.log: "),
        (INT | {"base": 2}, "int.base: "),
        ({"type": "int", "low": 3}, "int.high: "),
        ({"type": "categorical", "choices": []}, "categorical.choices: "),
        ({"type": "categorical", "choices": ["adam", "sgd", "adam"]}, "categorical: "),
        ({"type": "categorical", "choices": [[64], [64]]}, "categorical: "),
        ({"type": "categorical", "choices": list(range(1001))}, "categorical.choices: "),
        ({"type": "categorical", "choices": "adam"}, "categorical.choices: "),
        ({"type": "grid", "values": []}, "grid.values: "),
        ({"type": "grid", "values": [3, 5, 3]}, "grid: "),
        ({"type": "grid", "choices": [3, 5]}, "grid."),
        (LIST | {"length": INT | {"low": 0}}, "list: "),
        (LIST | {"length": INT | {"high": 65}}, "list: "),
        (LIST | {"length": 3}, "list.length: "),
        (LIST | {"items": LIST}, "list.items: "),
        ({"type": "normal", "mean": 0}, ": type must be one of"),
        ({"low": 3, "high": 100}, ": type must be one of"),
        ({"type": ["int"]}, ": type must be one of"),
    ],
)
def test_a_dimension_that_cannot_be_drawn_is_refused(wrong: dict[str, Any], field: str) -> None:
    """Inverted, empty, infinite, misnamed or mistyped dimensions are refused, and the error names the field."""
    assert any(refusal.startswith(field) for refusal in _refusals(wrong))


@pytest.mark.parametrize("value", [None, [None], [[1]], {}, [{"a": 1}]])
def test_a_value_that_no_parameter_takes_is_refused(value: Any) -> None:
    """A fixed value is a number, a string, true or false, or a list of these."""
    assert _refusals(value)


def test_a_float_range_on_a_log_scale_takes_no_step() -> None:
    """Optuna refuses both together when it draws, so even a step of 1.0 is refused here."""
    assert _refusals({"type": "float", "low": 0.5, "high": 8.0, "step": 1.0, "log": True})


@pytest.mark.parametrize("kind", [{"type": "categorical", "choices": [1, 1.0]}, {"type": "grid", "values": [1, 1.0]}])
def test_equal_numbers_written_differently_are_repeats(kind: dict[str, Any]) -> None:
    """1 and 1.0 train the same trial, and Optuna treats them as one choice, so they are a repeat."""
    assert _refusals(kind)


# --- the grid


def test_a_grid_is_the_product_of_its_values() -> None:
    """The size of a grid counts every combination of the finite dimensions; a fixed value counts once."""
    space = spaces.validate_python(
        {
            "batch_size": {"type": "grid", "values": [3, 5, 10]},
            "optimizer": {"type": "categorical", "choices": ["adam", "sgd"]},
            "hidden_sizes": {"type": "grid", "values": [[64], [128, 64]]},
            "learning_rate": 0.01,
        }
    )

    assert grid_size(space) == 12
    assert grid_values(space) == {
        "batch_size": [3, 5, 10],
        "optimizer": ["adam", "sgd"],
        "hidden_sizes": ["[64]", "[128, 64]"],
    }


# --- corners


def test_the_corners_of_a_range_are_its_ends() -> None:
    """A range is allowed if both ends are."""
    assert dimensions.validate_python(INT).corners() == [3, 100]


def test_the_corners_of_a_list_are_its_shortest_and_longest() -> None:
    """A list is allowed if the shortest and the longest are, with the lowest and the highest items."""
    corners = dimensions.validate_python(LIST).corners()

    assert {(len(corner), *set(corner)) for corner in corners} == {(n, item) for n in (2, 10) for item in (3, 100)}


def test_every_choice_is_a_corner() -> None:
    """Choices have no order: each must be allowed."""
    assert dimensions.validate_python({"type": "categorical", "choices": ["adam", "sgd"]}).corners() == ["adam", "sgd"]


# --- accepted spaces can be drawn from and trained


@st.composite
def _int_ranges(draw: st.DrawFn, least: int, most: int) -> dict[str, Any]:
    low, high = sorted([draw(st.integers(least, most)), draw(st.integers(least, most))])
    return {"type": "int", "low": low, "high": high} | draw(
        st.one_of(st.just({"log": True}), st.builds(lambda n: {"step": n}, st.integers(1, 2 * most)))
    )


@st.composite
def _float_ranges(draw: st.DrawFn, least: float, most: float) -> dict[str, Any]:
    numbers = st.floats(least, most, allow_subnormal=False)
    low, high = sorted([draw(numbers), draw(numbers)])
    logarithmic = [st.just({"log": True})] if low > 0 else []
    shape = draw(st.one_of(st.just({}), st.builds(lambda n: {"step": n}, st.floats(1e-3, 10)), *logarithmic))
    return {"type": "float", "low": low, "high": high} | shape


@st.composite
def _choices(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> dict[str, Any]:
    return {"type": "categorical", "choices": draw(st.lists(values, min_size=1, max_size=5, unique_by=str))}


@st.composite
def _lists(draw: st.DrawFn) -> dict[str, Any]:
    items = draw(st.one_of(_int_ranges(1, 64), _choices(st.integers(1, 64))))
    return {"type": "list", "length": draw(_int_ranges(1, 6)), "items": items}


mlp_spaces = st.fixed_dictionaries(
    {},
    optional={
        "batch_size": st.one_of(_int_ranges(1, 4096), _choices(st.integers(1, 4096)), st.integers(1, 4096)),
        "learning_rate": st.one_of(_float_ranges(1e-9, 10), _choices(st.floats(1e-9, 10)), st.floats(1e-9, 10)),
        "momentum": _float_ranges(0, 0.99),
        "weight_decay": _float_ranges(0, 1),
        "optimizer": st.one_of(_choices(st.sampled_from(["adam", "sgd"])), st.sampled_from(["adam", "sgd"])),
        "epochs": _int_ranges(1, 1000),
        "hidden_sizes": st.one_of(_lists(), _choices(st.lists(st.integers(1, 64), min_size=1, max_size=4))),
    },
).filter(bool)


def _inside(written: Any, value: Any) -> bool:
    """Return whether a drawn value is one that the dimension, as written, allows."""
    if not isinstance(written, dict):
        return bool(value == written)
    if written["type"] == "categorical":
        return value in written["choices"]
    if written["type"] == "list":
        return _inside(written["length"], len(value)) and all(_inside(written["items"], item) for item in value)
    slack = 1e-12 * abs(written["low"])  # exp(log(low)) may fall short of low by a rounding
    return bool(written["low"] - slack <= value <= written["high"])


@pytest.mark.filterwarnings("ignore:The distribution is specified by")
@settings(deadline=None, max_examples=150)
@given(space=mlp_spaces, number=st.integers(0, 3), seed=st.integers(0, 2**32 - 1))
def test_every_draw_from_a_valid_space_can_be_trained(space: dict[str, Any], number: int, seed: int) -> None:
    """Every draw from a valid space is in the space and accepted by the network's parameters."""
    body = {"model": "mlp", "search_space": space, "sampler": {"name": "random"}, "seed": seed}
    params, _ = Search(TuneSpec.model_validate(body)).ask(number)
    drawn = params.model_dump(include=set(space))

    assert isinstance(params, Params)
    assert set(drawn) == set(space)
    assert all(_inside(written, drawn[name]) for name, written in space.items()), drawn


def test_a_tiny_step_is_refused_or_drawn() -> None:
    """A step far smaller than its range is refused by name or can be drawn, so that no running job fails on it."""
    momentum = {"type": "float", "low": 0.0, "high": 0.9, "step": 1e-320}
    try:
        spec = TuneSpec.model_validate({"model": "mlp", "search_space": {"momentum": momentum}})
    except ValidationError as error:
        found: object = error.errors()[0]["loc"][:2]
    else:
        found = type(Search(spec).ask(0)[0].momentum)

    assert found in (("search_space", "momentum"), float)
