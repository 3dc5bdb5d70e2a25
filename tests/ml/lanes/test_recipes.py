"""Recipes: schedules, label smoothing, moving averages and dropout of lanes, compared with plain torch."""

from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.solo import CPU, DEVICES, WAYS, Way, batches, distance, train_alone
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR

from ml.datasets import Arrays
from ml.kernels.noise import kept, keys_of, places_of
from ml.kernels.schedules import NUMBERS, share_of
from ml.lanes.lanes import Lanes, LaneState
from ml.layers import Conv2d, Dropout, Flatten, Layer, Linear, MaxPool2d, ReLU
from ml.network.evaluate import Images, evaluate
from ml.network.onnx_graph import onnx_bytes
from ml.networks import networks
from ml.optimizers import Adam, Sgd
from ml.parameters.recipes import PLAIN, LaneRecipe

IMAGE = (1, 28, 28)
STEPS = 40
OPTIMIZERS = [Adam(learning_rate=1e-3, weight_decay=1e-3), Sgd(learning_rate=0.05, momentum=0.9), Sgd(), Adam()]
RECIPES = [
    LaneRecipe("one_cycle", STEPS, 0.1, 0.9, seed=1),
    LaneRecipe("cosine", 3 * STEPS, 0.0, None, seed=2),
    LaneRecipe("constant", STEPS, 0.3, 0.5, seed=3),
    LaneRecipe("one_cycle", 2 * STEPS, 0.0, 0.99, seed=4),
]
SIZES = [20, 33, 64, 7]


@pytest.fixture(scope="session")
def images(mnist: Arrays) -> Images:
    """Return the first 3,000 images of MNIST."""
    return Images.of(mnist.take(np.arange(3000)))


def _dense(size: int, share: float) -> list[Layer]:
    return [
        Flatten(),
        Linear(784, size),
        ReLU(),
        Dropout(share),
        Linear(size, 30),
        ReLU(),
        Dropout(share),
        Linear(30, 10),
    ]


def _convolved(size: int, share: float) -> list[Layer]:
    first = [Conv2d(1, 3, 5), ReLU(), MaxPool2d(4), Dropout(share), Conv2d(3, size, 3)]
    return [*first, ReLU(), Dropout(share), Flatten(), Dropout(share), Linear(16 * size, 10)]


NETWORKS = {"dense": _dense, "convolved": _convolved}


def _lanes(name: str, shares: tuple[float, ...] = (0.5, 0.2, 0.0, 0.7)) -> list[LaneState]:
    """Return four lanes that differ in width, optimizer, recipe and dropout."""
    layers = [NETWORKS[name](size, share) for size, share in zip(SIZES, shares, strict=True)]
    return [LaneState.initial(layers[k], OPTIMIZERS[k], k, RECIPES[k]) for k in range(4)]


def _trained(
    states: list[LaneState], images: Images, steps: list[np.ndarray], way: Way = CPU, **settings: Any
) -> list[LaneState]:
    lanes, data = Lanes(states, IMAGE, device=way.device, ops=way.ops(), **settings), images.to(way.device)
    for indices in steps:
        lanes.step(data, indices)
    return lanes.states()


# --- equal to plain torch


@given(steps=st.integers(4, 500), name=st.sampled_from(["cosine", "one_cycle"]))
@settings(max_examples=40, deadline=None)
def test_a_schedule_equals_torchs(name: str, steps: int) -> None:
    """Every step has the learning rate that torch's scheduler gives it."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    makes = {
        "cosine": lambda: CosineAnnealingLR(optimizer, steps),
        "one_cycle": lambda: OneCycleLR(optimizer, 1.0, total_steps=steps, cycle_momentum=False),
    }
    scheduler = makes[name]()
    expected = []
    for step in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < steps:
            scheduler.step()

    assert [share_of(NUMBERS[name], step, steps) for step in range(steps)] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_schedule_of_a_few_steps_is_finite(steps: int) -> None:
    """No step divides by zero, and none has more than the whole learning rate."""
    shares = [share_of(number, step, steps) for number in NUMBERS.values() for step in range(steps)]

    assert all(0 <= share <= 1 for share in shares)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_lane_follows_its_own_recipe(name: str, loss: str, way: Way, images: Images) -> None:
    """With schedule, smoothing, average and dropout, four lanes together end as each does alone in plain torch."""
    steps = batches(len(images), 6, STEPS)
    trained = _trained(_lanes(name), images, steps, loss=loss, dtype=torch.float64, way=way)
    alone = [train_alone(state, images, steps, loss).state_dict() for state in _lanes(name)]

    assert max(map(distance, [state.judged for state in trained], alone)) < 1e-8


@pytest.mark.parametrize("batch_size", [3, 40])
def test_a_wide_layer_follows_its_recipe_too(batch_size: int, images: Images) -> None:
    """This holds for gradients that are computed row by row inside the optimizer, and for all others."""
    layers = [Flatten(), Linear(784, 40), ReLU(), Dropout(0.4), Linear(40, 300), ReLU(), Dropout(0.4), Linear(300, 10)]
    states = [LaneState.initial(layers, OPTIMIZERS[k], k, RECIPES[k]) for k in range(4)]
    steps = batches(len(images), batch_size, 30)
    trained = _trained(states, images, steps, dtype=torch.float64)
    alone = [train_alone(state, images, steps).state_dict() for state in states]

    assert max(map(distance, [state.judged for state in trained], alone)) < 1e-8


# --- lanes do not influence each other, and resume where they stopped


@pytest.mark.parametrize("way", DEVICES)
@pytest.mark.parametrize("name", NETWORKS)
def test_a_lane_that_diverges_never_changes_its_neighbours(name: str, way: Way, images: Images) -> None:
    """Next to a lane of NaN, averaged or not, other lanes end bit-equal to a run in which no lane diverges."""
    steps = batches(len(images), 5, 30)
    calm, wild = _lanes(name), _lanes(name)
    for k in (0, 1):
        wild[k] = replace(wild[k], optimizer=Sgd(learning_rate=3e38))
        calm[k] = replace(calm[k], optimizer=Sgd())
    quiet, noisy = (_trained(states, images, steps, way) for states in (calm, wild))

    assert not all(tensor.isfinite().all() for k in (0, 1) for tensor in noisy[k].judged.values())
    for k in (2, 3):
        assert all(torch.equal(tensor, noisy[k].judged[key]) for key, tensor in quiet[k].judged.items())
        assert all(torch.equal(tensor, noisy[k].weights[key]) for key, tensor in quiet[k].weights.items())


@pytest.mark.parametrize("way", DEVICES)
@pytest.mark.parametrize("name", NETWORKS)
def test_lanes_built_from_saved_states_go_on_bit_for_bit(name: str, way: Way, images: Images) -> None:
    """A state holds the average too, and the next masks and learning rates follow from it."""
    steps = batches(len(images), 8, 20)
    whole = _trained(_lanes(name), images, steps, way)
    rest = _trained(_trained(_lanes(name), images, steps[:9], way), images, steps[9:], way)

    for one, other in zip(whole, rest, strict=True):
        assert all(torch.equal(tensor, other.weights[key]) for key, tensor in one.weights.items())
        assert all(torch.equal(tensor, other.average[key]) for key, tensor in one.average.items())
    assert [bool(state.average) for state in whole] == [True, False, True, True]


def test_the_moving_average_is_evaluated(images: Images) -> None:
    """Loss and accuracy equal those of a plain module with the judged weights, without smoothing or dropout."""
    lanes = Lanes(_lanes("dense"), IMAGE)
    for indices in batches(len(images), 8, 60):
        lanes.step(images, indices)
    expected = [evaluate(module, images, "cross_entropy") for module in lanes.split()]
    found = lanes.evaluate(images)
    states = lanes.states()

    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-4)
    assert [right for _, right in found] == pytest.approx([right for _, right in expected], abs=1 / len(images))
    assert distance(states[0].average, states[0].weights) > 1e-3


# --- dropout


def test_a_mask_drops_its_share_and_no_two_masks_are_equal() -> None:
    """The requested share of many numbers is 0; masks of other lanes, steps and layers are independent."""
    places = places_of(np.arange(500)[None].repeat(2, 0))
    masks = []
    for seeds, step in (((1, 2), 0), ((1, 2), 1), ((3, 4), 0)):
        mask = np.empty((2, 200, 500), np.float32)
        kept(keys_of(np.array(seeds, np.uint32), np.full(2, step), 200), places, np.array([0.5, 0.5]), mask)
        masks += list(mask)
    flat = np.stack(masks).reshape(len(masks), -1)
    apart = np.corrcoef(flat) - np.eye(len(flat))

    assert (flat == 0).mean(1) == pytest.approx(np.full(len(flat), 0.5), abs=5 * 0.5 / np.sqrt(flat.shape[1]))
    assert np.abs(apart).max() < 5 / np.sqrt(flat.shape[1])
    assert np.abs(np.corrcoef(masks[0]) - np.eye(200)).max() < 6 / np.sqrt(500)


@pytest.mark.parametrize("way", WAYS)
def test_a_mask_is_the_same_on_every_device(way: Way) -> None:
    """Masks are equal bit for bit, at every share."""
    keys = keys_of(np.array([1, 2, 3, 4], np.uint32), np.array([0, 7, 2**31, 2**32 - 1]), 50)
    places = places_of(np.arange(4 * 300).reshape(4, 300))
    shares = np.array([0.0, 0.2, 0.5, 0.9])
    expected = np.empty((4, 50, 300), np.float32)
    kept(keys, places, shares, expected)
    mask = torch.empty(4, 50, 300, device=way.device)
    given = (torch.from_numpy(array).to(way.device) for array in (keys.view(np.int32), places.view(np.int32), shares))
    way.ops().drop(*given, mask)

    assert np.array_equal(mask.cpu().numpy(), expected)


def test_a_dropout_of_zero_equals_no_dropout(images: Images) -> None:
    """A lane that drops nothing ends bit-equal to a network without dropout layers."""
    steps = batches(len(images), 8, 20)
    params = [networks["mlp"].params.model_validate(given) for given in ({}, {"dropout": 0.0})]
    layers = [networks["mlp"].layers(IMAGE, 10, own) for own in params]
    bare, dropping = (
        list(_trained([LaneState.initial(own, Adam(), 0)], images, steps)[0].weights.values()) for own in layers
    )

    assert all(torch.equal(one, other) for one, other in zip(bare, dropping, strict=True))


def test_a_published_graph_has_no_dropout() -> None:
    """The graph answers as the module does outside of training."""
    state = LaneState.initial(_convolved(4, 0.5), Adam(), 0, PLAIN)
    weights = {name: tensor.numpy() for name, tensor in state.weights.items()}
    pixels = np.random.default_rng(0).random((5, *IMAGE), np.float32)
    session = onnxruntime.InferenceSession(onnx_bytes(state.layers, weights, IMAGE))
    (found,) = session.run(["outputs"], {"pixels": pixels})

    assert found == pytest.approx(state.module()(torch.from_numpy(pixels)).detach().numpy(), abs=1e-5)
