"""Transfer: trials that begin with another network's weights, some of which stay frozen."""

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from support.solo import WAYS, Way, batches, distance, train_alone

from ml.datasets import Arrays
from ml.errors import LanesError
from ml.lanes.lanes import Lanes, LaneState
from ml.layers import Layer, parameter_count
from ml.network.evaluate import Images
from ml.network.modules import module_of
from ml.network.transfer import fresh
from ml.networks import networks
from ml.optimizers import Adam, Sgd
from ml.records import Checkpoint, Event, Finished, Measured, Started
from ml.specs import InitFrom, TuneSpec
from ml.training.lane import Lane, TrainingData
from ml.training.pack import LanePack
from ml.training.replay import Recipe, replay
from ml.tuning.book import MemoryBook
from ml.tuning.search import Search
from ml.tuning.tune import tune

IMAGE = (1, 28, 28)
OPTIMIZERS = (Adam(learning_rate=1e-3, weight_decay=1e-2), Sgd(learning_rate=0.05, momentum=0.9))

pytestmark = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")


def layers_of(model: str, classes: int = 10, **params: Any) -> list[Layer]:
    """Return a network for MNIST's images."""
    return networks[model].layers(IMAGE, classes, networks[model].params.model_validate(params))


def weights_of(model: str, seed: int = 9, **params: Any) -> dict[str, np.ndarray]:
    """Return weights as a published version has them."""
    return {name: tensor.numpy() for name, tensor in module_of(layers_of(model, **params), seed).state_dict().items()}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("model", "frozen"),
    [("shallow", {1}), ("shallow", {3}), ("mlp", {1, 3}), ("mlp", {3}), ("cnn", {0}), ("cnn", {0, 3}), ("cnn", {3, 9})],
)
def test_lanes_with_frozen_layers_equal_plain_torch(model: str, frozen: set[int], way: Way, digits: Arrays) -> None:
    """Adam with weight decay and SGD with momentum train together; frozen weights stay bit for bit."""
    images, places = Images.of(digits.take(np.arange(len(digits)))), frozenset(frozen)
    states = [LaneState.initial(layers_of(model), optimizer, n) for n, optimizer in enumerate(OPTIMIZERS)]
    steps = batches(len(images), 5, 40)
    lanes = Lanes(states, IMAGE, device=way.device, dtype=torch.float64, ops=way.ops(), frozen=places)
    for indices in steps:
        lanes.step(images.to(way.device), indices)
    alone = [train_alone(state, images, steps, frozen=places).state_dict() for state in states]

    assert max(map(distance, [state.weights for state in lanes.states()], alone)) < 1e-8
    for before, after in zip(states, lanes.states(), strict=True):
        kept = [name for name in before.weights if int(name.split(".")[0]) in places]
        assert all(torch.equal(before.weights[name].double(), after.weights[name].double()) for name in kept)
        assert len(kept) == 2 * len(places)


def test_only_weights_of_the_same_place_and_shape_are_taken_over() -> None:
    """If the number of classes differs, the last layer comes from the lane's seed."""
    given = module_of(layers_of("shallow"), 9).state_dict()
    state = LaneState.initial(layers_of("shallow", classes=4), Adam(), 1, given=given)
    own = module_of(layers_of("shallow", classes=4), 1).state_dict()

    assert fresh(layers_of("shallow", classes=4), {n: tuple(t.shape) for n, t in given.items()}) == [
        "3.weight",
        "3.bias",
    ]
    assert all(torch.equal(state.weights[name], given[name]) for name in ("1.weight", "1.bias"))
    assert all(torch.equal(state.weights[name], own[name]) for name in ("3.weight", "3.bias"))


def test_a_layer_is_taken_over_completely_or_not_at_all() -> None:
    """A bias is not taken over if the weight of its layer has another shape."""
    shapes = {"1.weight": (128, 100), "1.bias": (128,), "3.weight": (10, 128), "3.bias": (10,)}

    assert fresh(layers_of("shallow"), shapes) == ["1.weight", "1.bias"]


@pytest.mark.parametrize(
    ("freeze", "places"), [(0, set()), (1, {0}), (2, {0, 3}), (["3", "7"], {3, 7}), (4, {0, 3, 7, 9})]
)
def test_layers_are_frozen_by_number_or_place(freeze: Any, places: set[int]) -> None:
    """Only layers that have weights count."""
    assert InitFrom(model="cnn", version=1, freeze=freeze).frozen(layers_of("cnn")) == places


@pytest.mark.parametrize("freeze", [5, ["1"], ["0", "3", "7", "9", "11"], ["x"]])
def test_layers_that_cannot_be_frozen_are_refused(freeze: Any) -> None:
    """At least one layer must train, and a layer that does not exist cannot be frozen."""
    with pytest.raises(ValueError, match=r"layers|names"):
        InitFrom(model="cnn", version=1, freeze=freeze).frozen(layers_of("cnn"))


def test_no_negative_number_of_layers_is_frozen() -> None:
    """A negative number is refused, with its place in the specification."""
    with pytest.raises(ValidationError, match="freeze"):
        InitFrom(model="cnn", version=1, freeze=-1)


def spec_of(**fields: Any) -> TuneSpec:
    """Return a job of three trials that begin with a version, with their hidden layer frozen."""
    body = {
        "model": "shallow",
        "dataset": "digits",
        "search_space": {"learning_rate": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True}, "batch_size": 16},
        "budget": {"trials": 3, "epochs": 2},
        "pruner": {"name": "none"},
        "lanes": 3,
        "init_from": {"model": "shallow", "version": 1, "freeze": 1},
    }
    return TuneSpec.model_validate(body | fields)


def test_every_trial_of_a_job_that_begins_with_a_version_can_be_replayed_alone(digits_data: TrainingData) -> None:
    """Its checkpoint has the frozen weights unchanged, and names the fresh ones."""
    given = weights_of("shallow")
    given["3.weight"] = given["3.weight"][:4]  # as in a version with another number of classes
    spec, data = spec_of(), digits_data.beginning_with(given)
    events: list[Event] = []
    tune(spec, data, MemoryBook(spec, events.append), Search(spec))
    starts = [event for event in events if isinstance(event, Started)]
    finished = [event for event in events if isinstance(event, Finished)]

    assert len(starts) == len(finished) == 3
    for start in starts:
        recorded = [e.measurement for e in events if isinstance(e, Measured) and e.number == start.number]
        recipe = Recipe(start.number, start.params, start.init_seed, start.stream_seed, start.start_step, 20)
        found = list(replay(spec, recipe, data))
        assert [m.val_accuracy for m in found] == pytest.approx([m.val_accuracy for m in recorded], abs=0.003)
    for event in finished:
        assert event.checkpoint is not None
        assert np.array_equal(event.checkpoint.weights["1.weight"], given["1.weight"])
        assert event.checkpoint.card["fresh"] == ["3.weight", "3.bias"]


def test_a_pack_with_frozen_layers_resumes_bit_equal(digits_data: TrainingData) -> None:
    """This includes frozen and fresh weights."""
    spec, data = spec_of(), digits_data.beginning_with(weights_of("shallow"))
    recipe = {"batch_size": 16, "learning_rate": 1e-3}

    def ended(pack: LanePack) -> dict[str, torch.Tensor]:
        (lane,) = {id(lane): lane for rungs in pack.run(lambda: False) for lane, _ in rungs}.values()
        return lane.best_weights

    def begun() -> LanePack:
        pack = LanePack.of(spec, data, spec.params({"batch_size": 16}), stream_seed=5)
        pack.join(Lane(0, spec, spec.params(recipe), 1, 5))
        return pack

    lost = begun()
    next(iter(lost.run(lambda: lost.position >= 30)))
    left: Checkpoint = lost.checkpoint()
    whole, resumed = ended(begun()), ended(LanePack.resumed(left, data))

    assert left.card["position"] == 30
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert sum(map(torch.numel, whole.values())) == parameter_count(layers_of("shallow"))


def test_no_trial_begins_without_its_version(digits_data: TrainingData) -> None:
    """A trial fails instead of beginning with random weights."""
    spec = spec_of()
    pack = LanePack.of(spec, digits_data, spec.params({"batch_size": 16}), stream_seed=5)
    with pytest.raises(LanesError, match="is not available"):
        pack.join(Lane(0, spec, spec.params({"batch_size": 16}), 1, 5))
