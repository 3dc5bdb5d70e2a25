"""The key of a trial: its parts, the names that decide it, and a grid in the order of its keys."""

from itertools import groupby, product
from time import process_time
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from ml.layers import Flatten, Layer, Linear, ReLU
from ml.networks import Network, networks
from ml.parameters.params import Params
from ml.specs import TuneSpec
from ml.tuning.keys import Key, key_names, key_of, kind_names, partition_of
from ml.tuning.search import Search

# Optuna warns of the argument `group` for each new TPE sampler; ml ignores the warning, but pytest shows it again.
pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")

BATCH = {"type": "int", "low": 8, "high": 64}
RATE = {"type": "float", "low": 1e-4, "high": 1e-2}
WIDTH = {"type": "int", "low": 4, "high": 9}


def _spec(model: str, space: dict[str, Any], **fields: Any) -> TuneSpec:
    return TuneSpec.model_validate({"model": model, "search_space": space, "sampler": {"name": "random"}} | fields)


def _list(low: int, high: int, items: dict[str, Any] = WIDTH) -> dict[str, Any]:
    return {"type": "list", "length": {"type": "int", "low": low, "high": high}, "items": items}


def _choice(*values: Any) -> dict[str, Any]:
    return {"type": "categorical", "choices": list(values)}


# --- the key


@pytest.mark.parametrize(
    ("model", "params", "text"),
    [
        ("perceptron", {}, "batch 64, Flatten-Linear"),
        ("shallow", {"batch_size": 32}, "batch 32, Flatten-Linear-ReLU-Linear"),
        ("mlp", {"batch_size": 3, "hidden_sizes": [9, 8]}, "batch 3, Flatten-Linear-ReLU-Linear-ReLU-Linear"),
    ],
)
def test_a_key_reads_as_batch_and_kinds(model: str, params: dict[str, Any], text: str) -> None:
    """A key's text names the batch size and the kinds of layer in order."""
    spec = _spec(model, {"batch_size": 3})

    assert str(key_of(spec, spec.params(params))) == text


def test_widths_and_optimizers_are_no_part_of_a_key() -> None:
    """Trials that differ in widths, learning rate and optimizer share a key; another depth is another key."""
    spec = _spec("mlp", {"batch_size": 3})
    one, other, deeper = (
        key_of(spec, spec.params({"hidden_sizes": sizes, "learning_rate": rate, "optimizer": kind}))
        for sizes, rate, kind in [([5, 6], 0.1, "adam"), ([700, 8], 0.001, "sgd"), ([5, 6, 7], 0.1, "adam")]
    )

    assert one == other != deeper


# --- the names that decide a key


@pytest.mark.parametrize(
    ("model", "space", "names"),
    [
        ("cnn", {"batch_size": BATCH, "learning_rate": RATE, "optimizer": _choice("adam", "sgd")}, ["batch_size"]),
        ("cnn", {"batch_size": 32, "learning_rate": RATE}, []),
        ("cnn", {"learning_rate": RATE, "batch_size": _choice(16, 32)}, ["batch_size"]),
        ("shallow", {"hidden_size": WIDTH, "batch_size": BATCH}, ["batch_size"]),
        ("mlp", {"hidden_sizes": _list(1, 4), "batch_size": BATCH}, ["batch_size", "hidden_sizes.length"]),
        ("mlp", {"hidden_sizes": _list(3, 3)}, []),
        ("mlp", {"hidden_sizes": _choice([8], [9], [8, 9])}, ["hidden_sizes"]),
        ("mlp", {"hidden_sizes": _choice([8, 9], [9, 8])}, []),
        ("mlp", {"hidden_sizes": [8, 9], "epochs": {"type": "int", "low": 1, "high": 3}}, []),
    ],
)
def test_a_drawn_batch_size_and_the_length_of_a_list_decide_a_key(
    model: str, space: dict[str, Any], names: list[str]
) -> None:
    """Widths, the learning rate and fixed values do not."""
    assert list(key_names(_spec(model, space))) == names


class NewParams(Params):
    """The hyper-parameters of the new networks below."""

    depth: int = Field(1, ge=1, le=3)
    activation: Literal["none", "relu"] = "none"
    blocks: list[Literal["none", "relu"]] = Field(["none"])
    left: int = 1
    right: int = 1


def _activated(params: NewParams) -> bool:
    return params.activation == "relu"


def _activated_where_deep(params: NewParams) -> bool:
    return params.activation == "relu" and params.depth == 3


def _quarrelsome(params: NewParams) -> bool:
    if 1 != params.left != params.right != 1:
        raise KeyError(params.right)
    return False


@pytest.fixture
def newcomers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register networks whose hyper-parameters change the kinds of layer, each in its own way."""

    def dense(features: int, classes: int, activated: list[bool]) -> list[Layer]:
        hidden = [layer for relu in activated for layer in ([Linear(4, 4), ReLU()] if relu else [Linear(4, 4)])]
        return [Flatten(), Linear(features, 4), *hidden, Linear(4, classes)]

    for rule in (_activated, _activated_where_deep, _quarrelsome):

        def build(c: int, h: int, w: int, classes: int, params: NewParams, rule: Any = rule) -> list[Layer]:
            return dense(c * h * w, classes, [rule(params)])

        monkeypatch.setitem(networks, rule.__name__, Network(build, NewParams, {}, "For a test."))

    def blocks(c: int, h: int, w: int, classes: int, params: NewParams) -> list[Layer]:
        return dense(c * h * w, classes, [block == "relu" for block in params.blocks])

    monkeypatch.setitem(networks, "blocks", Network(blocks, NewParams, {}, "For a test."))


@pytest.mark.usefixtures("newcomers")
@pytest.mark.parametrize(
    ("model", "space", "names"),
    [
        ("_activated", {"activation": _choice("none", "relu"), "depth": WIDTH | {"low": 1, "high": 3}}, ["activation"]),
        # With the default depth the activation changes nothing.
        ("_activated_where_deep", {"activation": _choice("none", "relu"), "depth": 1}, []),
        ("_activated_where_deep", {"activation": _choice("none", "relu"), "depth": 3}, ["activation"]),
        (
            "_activated_where_deep",
            {"activation": _choice("none", "relu"), "depth": {"type": "int", "low": 1, "high": 3}},
            ["activation", "depth"],
        ),
        ("blocks", {"blocks": _list(1, 2, _choice("none", "relu"))}, ["blocks.length", "blocks.0", "blocks.1"]),
        ("blocks", {"blocks": _list(2, 2, _choice("none", "relu"))}, ["blocks.0", "blocks.1"]),
        ("blocks", {"blocks": _list(1, 2, _choice("relu"))}, ["blocks.length"]),
        # If some values do not work together, the names that clash are decided together.
        (
            "_quarrelsome",
            {"learning_rate": RATE, "left": _choice(1, 2, 3), "right": _choice(1, 2, 3)},
            ["left", "right"],
        ),
        # If no corner of the space can be built, every name counts.
        (
            "_quarrelsome",
            {"learning_rate": RATE, "left": _choice(2), "right": _choice(3)},
            ["learning_rate", "left", "right"],
        ),
    ],
)
def test_every_name_that_changes_the_kinds_of_layer_decides_a_key(
    model: str, space: dict[str, Any], names: list[str]
) -> None:
    """The names of a new network are found too, even in combination; a name in doubt counts."""
    assert list(kind_names(_spec(model, space))) == names


@settings(deadline=None, max_examples=50)
@given(model=st.sampled_from(list(networks)), number=st.integers(0, 500), seed=st.integers(0, 99))
def test_trials_that_agree_in_the_deciding_names_have_the_same_key(model: str, number: int, seed: int) -> None:
    """Two draws of a network's default space that agree in the deciding names have the same key."""
    spec = TuneSpec.model_validate({"model": model, "seed": seed})
    search = Search(spec)
    first, record = search.ask(number)
    other, drawn = search.ask(number + 1, record.suggestion)

    assert {name: drawn.suggestion[name] for name in key_names(spec)} == {  # type: ignore[index]
        name: record.suggestion[name]  # type: ignore[index]
        for name in key_names(spec)
    }
    assert key_of(spec, other) == key_of(spec, first)


# --- a grid, one key after another

GRID = {
    "batch_size": {"type": "grid", "values": [8, 16, 32]},
    "hidden_sizes": {"type": "grid", "values": [[8], [4, 4], [16], [9, 3], [5, 5, 5]]},
    "learning_rate": {"type": "grid", "values": [0.1, 0.01]},
    "optimizer": "sgd",
}


def _grid(space: dict[str, Any] = GRID, **fields: Any) -> TuneSpec:
    return _spec("mlp", space, **{"sampler": {"name": "grid"}, "budget": {"epochs": 1}} | fields)


def _walk(spec: TuneSpec) -> list[tuple[Key, dict[str, Any]]]:
    search = Search(spec)
    asked = [search.ask(number) for number in range(spec.trial_limit)]
    return [(key_of(spec, params), record.suggestion or {}) for params, record in asked]


def test_a_grid_visits_every_point_of_a_key_before_the_next() -> None:
    """Each point comes once, and the points of a key follow each other, with all their widths."""
    walked = _walk(_grid())
    points = {str(sorted(suggestion.items())) for _, suggestion in walked}
    runs = [(key, len(list(run))) for key, run in groupby(key for key, _ in walked)]

    assert len(points) == len(walked) == 30
    assert len(runs) == len(dict(runs)) == 9
    assert {len(key.kinds): length for key, length in runs} == {4: 4, 6: 4, 8: 2}


def test_keys_and_the_points_within_them_are_shuffled() -> None:
    """Neither batch sizes nor learning rates come in the order in which they are written."""
    walked = _walk(_grid())
    batches = [key.batch_size for key, _ in walked]
    rates = [suggestion["learning_rate"] for _, suggestion in walked]

    assert batches not in (sorted(batches), sorted(batches, reverse=True))
    assert set(rates[::2]) == set(rates[1::2]) == {0.1, 0.01}


def test_the_order_of_a_grid_depends_on_its_values_alone() -> None:
    """Another seed, another pruner or another order of names gives the same order of points."""
    turned = dict(reversed(GRID.items()))

    assert _walk(_grid(turned, seed=9, pruner={"name": "median"})) == _walk(_grid())


def test_a_trial_of_a_grid_fits_only_the_packs_of_its_key() -> None:
    """`fits` is true only for two points with the same key; a number beyond the grid fits no pack."""
    spec = _grid()
    search, walked = Search(spec), _walk(spec)
    found = [[search.fits(number, like) for _, like in walked] for number in range(30)]

    assert found == [[key == other for other, _ in walked] for key, _ in walked]
    assert not search.fits(30, walked[0][1])


def test_a_grid_draws_its_own_point_in_any_pack() -> None:
    """Its number decides the point, in any pack."""
    spec = _grid()
    walked = _walk(spec)

    assert [Search(spec).ask(number, walked[0][1])[1].suggestion for number in range(30)] == [s for _, s in walked]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_trial_of_another_sampler_fits_any_pack(sampler: str) -> None:
    """If values are drawn, a trial adopts the key of any pack that it joins."""
    spec = _spec("mlp", {"batch_size": BATCH}, sampler={"name": sampler})
    search = Search(spec)

    assert all(search.fits(number, search.ask(0)[1].suggestion or {}) for number in range(1, 9))


@pytest.mark.parametrize(
    "space",
    [
        {"batch_size": range(1, 101), "learning_rate": [i / 1e6 for i in range(1, 1001)]},
        {"batch_size": range(1, 101), "hidden_sizes": [[16] * (1 + i % 9) + [i + 1] for i in range(1000)]},
    ],
)
def test_a_large_grid_is_ordered_quickly(space: dict[str, Any]) -> None:
    """Ordering 100,000 points takes less than two seconds, and each further trial almost no time."""
    spec = _grid({name: {"type": "grid", "values": list(values)} for name, values in space.items()})
    began = process_time()
    search = Search(spec)
    first = search.ask(0)
    ordered = process_time()
    others = [search.ask(number) for number in range(1, 21)]

    assert ordered - began < 2
    assert process_time() - ordered < 1
    assert len({str(params) for params, _ in [first, *others]}) == 21


def test_the_points_of_a_large_grid_are_all_different() -> None:
    """A grid of 4,000 points has each of them once, one batch size after another."""
    values = {"batch_size": range(1, 41), "learning_rate": [i / 1000 for i in range(1, 101)]}
    spec = _grid({name: {"type": "grid", "values": list(found)} for name, found in values.items()})
    partition = partition_of(spec)
    points = [tuple(partition.fixed(number, {}).values()) for number in range(4000)]

    assert sorted(points) == sorted(product(*values.values()))
    assert len(list(groupby(batch for batch, _ in points))) == 40
