"""Every lane equals its solo run: the fused module, compared with plain torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.solo import CPU, DEVICES, WAYS, Way, batches, distance, train_alone
from torch import Tensor, nn

from ml.datasets import Arrays
from ml.errors import LanesError
from ml.lanes.lanes import Lanes, LaneState
from ml.layers import Conv2d, Flatten, Layer, Linear, MaxPool2d, ReLU, Shape
from ml.network.evaluate import Images
from ml.networks import networks
from ml.optimizers import Adam, Optimizer, Sgd

IMAGE = (1, 28, 28)
OPTIMIZERS = (
    Adam(learning_rate=1e-3),
    Sgd(learning_rate=0.05, momentum=0.9),
    Sgd(learning_rate=0.1, weight_decay=1e-3),
    Adam(learning_rate=3e-3, weight_decay=1e-3),
    Sgd(learning_rate=0.02),
)
WIDTHS: dict[str, list[dict[str, Any]]] = {
    "perceptron": [{}] * 5,
    "shallow": [{"hidden_size": width} for width in (64, 128, 32, 100, 65)],
    "mlp": [{"hidden_sizes": sizes} for sizes in ([64, 30], [80, 128], [32, 64], [100, 7], [65, 65])],
    "cnn": [{}] * 5,
}


@pytest.fixture(scope="session")
def images(mnist: Arrays) -> Images:
    """Return the first 6,000 images of MNIST."""
    return Images.of(mnist.take(np.arange(6000)))


def _lanes_of(model: str, params: Sequence[dict[str, Any]], optimizers: Sequence[Optimizer]) -> list[LaneState]:
    network = networks[model]
    layers = [network.layers(IMAGE, 10, network.params.model_validate(own)) for own in params]
    return [
        LaneState.initial(own, optimizer, i) for i, (own, optimizer) in enumerate(zip(layers, optimizers, strict=True))
    ]


def _trained(
    states: Sequence[LaneState],
    images: Images,
    steps: Sequence[np.ndarray],
    loss: Any = "cross_entropy",
    dtype: torch.dtype = torch.float64,
    way: Way = CPU,
) -> list[LaneState]:
    data, image = images.to(way.device), tuple(images.images.shape[1:])
    lanes = Lanes(states, image, loss, way.device, dtype, way.ops())
    for indices in steps:
        lanes.step(data, indices)
    return lanes.states()


# --- equal to a solo run, in float64


@pytest.mark.long
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("loss", "batch_size"), [("cross_entropy", 3), ("cross_entropy", 20), ("mse", 3)])
@pytest.mark.parametrize("model", networks)
def test_every_lane_equals_its_solo_run(model: str, loss: str, batch_size: int, way: Way, images: Images) -> None:
    """After 100 steps among other lanes, no weight differs from plain torch by more than 1e-8 of the largest."""
    states, steps, alone = _alone(model, loss, batch_size, images)
    trained = _trained(states, images, steps, loss, way=way)

    assert max(map(distance, [state.weights for state in trained], alone)) < 1e-8


@lru_cache(maxsize=1)  # consecutive tests differ only in the way of training, and share the result of plain torch
def _alone(
    model: str, loss: str, batch_size: int, images: Images
) -> tuple[list[LaneState], Sequence[np.ndarray], list[dict[str, Tensor]]]:
    states = _lanes_of(model, WIDTHS[model], OPTIMIZERS)
    steps = batches(len(images), batch_size, 100)
    return states, steps, [train_alone(state, images, steps, loss).state_dict() for state in states]


def _optimizers(fastest_adam: float) -> st.SearchStrategy[Optimizer]:
    """Return a strategy for any optimizer, with Adam's learning rate limited to `fastest_adam`."""
    decays = st.sampled_from([0.0, 1e-4, 1e-2])
    return st.one_of(
        st.builds(Adam, learning_rate=st.floats(1e-5, fastest_adam), weight_decay=decays),
        st.builds(
            Sgd,
            learning_rate=st.floats(1e-3, 0.1),
            weight_decay=decays,
            momentum=st.sampled_from([0.0, 0.5, 0.9]),
        ),
    )


widths = {
    "perceptron": st.just({}),
    "shallow": st.builds(lambda n: {"hidden_size": n}, st.integers(1, 80)),
    "mlp": st.builds(lambda *n: {"hidden_sizes": list(n)}, st.integers(1, 80), st.integers(1, 80)),
    "cnn": st.just({}),
}


@dataclass
class Mix:
    """Several lanes of one network."""

    model: str
    params: list[dict[str, Any]]
    optimizers: list[Optimizer]
    batch_size: int
    loss: str


@st.composite
def mixes(draw: st.DrawFn, fastest_adam: float = 3e-3) -> Mix:
    """Draw any network and one to six lanes, each with its own width and optimizer."""
    model, lanes = draw(st.sampled_from(sorted(networks))), draw(st.integers(1, 6))
    params = draw(st.lists(widths[model], min_size=lanes, max_size=lanes))
    chosen = draw(st.lists(_optimizers(fastest_adam), min_size=lanes, max_size=lanes))
    return Mix(
        model, params, chosen, draw(st.sampled_from([1, 2, 7, 20])), draw(st.sampled_from(["cross_entropy", "mse"]))
    )


@pytest.mark.parametrize("way", DEVICES)
@given(mix=mixes())
@settings(max_examples=40, deadline=None)
def test_any_mix_of_lanes_equals_its_solo_runs(way: Way, mix: Mix, images: Images) -> None:
    """Widths, learning rates, decays, momenta and kinds of optimizer may differ from lane to lane."""
    states = _lanes_of(mix.model, mix.params, mix.optimizers)
    steps = batches(len(images), mix.batch_size, 20)
    trained = _trained(states, images, steps, mix.loss, way=way)
    alone = [train_alone(state, images, steps, mix.loss).state_dict() for state in states]

    assert max(map(distance, [state.weights for state in trained], alone)) < 1e-8


# --- equal to a solo run, in float32


@pytest.mark.long
@pytest.mark.parametrize("way", DEVICES)
@given(mix=mixes(fastest_adam=1e-4))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_in_float32_lanes_are_as_near_to_solo_as_rounding_allows(way: Way, mix: Mix, images: Images) -> None:
    """After 20 steps a lane is within 1e-4 of plain torch, or as near to it as torch is to the exact result.

    Adam takes a whole step for a gradient that is non-zero only by rounding, in torch as in lanes: at a rate of 3e-3
    torch's own float32 run ended 7e-3 from its float64 run. So rates are low here, and the draws are always the same.
    """
    states = _lanes_of(mix.model, mix.params, mix.optimizers)
    steps = batches(len(images), mix.batch_size, 20)
    for state, lane in zip(states, _trained(states, images, steps, mix.loss, torch.float32, way), strict=True):
        torch32 = train_alone(state, images, steps, mix.loss, torch.float32).state_dict()
        apart = distance(lane.weights, torch32)

        assert apart < 1e-4 or apart < 4 * distance(torch32, train_alone(state, images, steps, mix.loss).state_dict())


@pytest.mark.long
@pytest.mark.parametrize("way", DEVICES)
@pytest.mark.parametrize("model", networks)
def test_an_epoch_in_float32_ends_as_accurate_as_a_solo_run(model: str, way: Way, mnist: Arrays) -> None:
    """After an epoch of many images each lane's validation accuracy is within 0.3 points of plain torch's."""
    many = 12_600 if model == "cnn" else 25_200
    train, validation = Images.of(mnist.take(np.arange(many))), Images.of(mnist.take(np.arange(50_400, 63_000)))
    # Faster optimizers prove nothing: with rate 0.02 and momentum 0.9, plain torch on two threads ended 0.7 points
    # from plain torch on one thread, by rounding alone.
    chosen = [Adam(learning_rate=3e-4), Sgd(learning_rate=0.05), Adam(learning_rate=1e-4)]
    states = _lanes_of(model, WIDTHS[model][:3], chosen)
    steps = batches(len(train), 100, len(train) // 100)
    lanes, data = Lanes(states, IMAGE, device=way.device), train.to(way.device)
    for indices in steps:
        lanes.step(data, indices)
    found = [accuracy for _, accuracy in lanes.evaluate(validation.to(way.device))]
    alone = [train_alone(state, train, steps, dtype=torch.float32) for state in states]
    expected = [_accuracy(module, validation) for module in alone]

    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) <= 0.003


@pytest.mark.long
@pytest.mark.parametrize("model", networks)
def test_an_epoch_in_float64_ends_with_the_weights_of_a_solo_run(model: str, mnist: Arrays) -> None:
    """After an epoch no weight is further from plain torch's than 1e-5 of the largest of its tensor."""
    train = Images.of(mnist.take(np.arange(5_000 if model == "cnn" else 25_200)))
    chosen = [Adam(learning_rate=3e-4), Sgd(learning_rate=0.02, momentum=0.9), Sgd(learning_rate=0.05)]
    states = _lanes_of(model, WIDTHS[model][:3], chosen)
    steps = batches(len(train), 50, len(train) // 50)
    trained = _trained(states, train, steps)
    alone = [train_alone(state, train, steps).state_dict() for state in states]

    assert max(map(distance, [state.weights for state in trained], alone)) < 1e-5


def _accuracy(module: nn.Module, data: Images) -> float:
    with torch.inference_mode():
        return float((module(data.images.float() / 255).argmax(1) == data.labels).float().mean())


# --- lanes do not influence each other


@pytest.mark.parametrize("way", DEVICES)
@pytest.mark.parametrize("model", networks)
@pytest.mark.parametrize("diverging", [{0}, {1}, {2}, {1, 2}])
def test_a_lane_that_diverges_never_changes_its_neighbours(
    model: str, diverging: set[int], way: Way, images: Images
) -> None:
    """Next to lanes of NaN and infinity, other lanes end bit-equal to a run in which no lane diverges."""
    calm = [Adam(learning_rate=1e-3), Sgd(learning_rate=0.05), Sgd(learning_rate=0.02, momentum=0.9)]
    wild = [kind.model_copy(update={"learning_rate": 3e38}) if n in diverging else kind for n, kind in enumerate(calm)]
    params = [WIDTHS[model][0]] * 3
    steps = batches(len(images), 5, 30)
    quiet = _trained(_lanes_of(model, params, calm), images, steps, dtype=torch.float32, way=way)
    noisy = _trained(_lanes_of(model, params, wild), images, steps, dtype=torch.float32, way=way)

    for n, (left_alone, beside) in enumerate(zip(quiet, noisy, strict=True)):
        if n in diverging:
            assert not all(tensor.isfinite().all() for tensor in beside.weights.values())
        else:
            assert all(torch.equal(tensor, beside.weights[name]) for name, tensor in left_alone.weights.items())


def test_only_the_lane_that_diverges_is_not_finite(images: Images) -> None:
    """The losses show which lane diverged."""
    states = _lanes_of("shallow", [{"hidden_size": 20}] * 3, [Adam(), Sgd(learning_rate=3e38), Sgd(learning_rate=0.1)])
    lanes = Lanes(states, IMAGE)
    for indices in batches(len(images), 5, 20):
        lanes.step(images, indices)

    assert lanes.finite() == [True, False, True]


@pytest.mark.parametrize("model", ["shallow", "mlp"])
def test_padding_stays_zero(model: str, images: Images) -> None:
    """The padding of a narrow lane is exactly 0 after training, in weights and moments."""
    lanes = Lanes(_lanes_of(model, WIDTHS[model], OPTIMIZERS), IMAGE)
    for indices in batches(len(images), 4, 30):
        lanes.step(images, indices)
    last = lanes._layers[-1][1].parameters[0]
    narrow = [min(len(places), last.value.shape[1] - 1) for places in lanes._layers[-1][1].places]

    assert all((last.value[k, n:-1] == 0).all() and (last.exp_avg[k, n:-1] == 0).all() for k, n in enumerate(narrow))
    assert min(narrow) < max(narrow)


# --- lanes as separate states and modules


@pytest.mark.parametrize("model", networks)
def test_split_gives_plain_modules_that_answer_as_the_lanes_do(model: str, images: Images) -> None:
    """Each module is a torch module with the lane's own width."""
    lanes = Lanes(_lanes_of(model, WIDTHS[model], OPTIMIZERS), IMAGE)
    for indices in batches(len(images), 8, 20):
        lanes.step(images, indices)
    chosen = np.arange(50)
    outputs = lanes.outputs(images, chosen)
    modules = lanes.split()

    assert all(type(module) is nn.Sequential for module in modules)
    assert [sum(p.numel() for p in module.parameters()) for module in modules] == [
        sum(w.numel() for w in state.weights.values()) for state in lanes.states()
    ]
    for lane, module in zip(outputs, modules, strict=True):
        torch.testing.assert_close(lane, module(images.images[:50].float() / 255).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", DEVICES)
@pytest.mark.parametrize("model", networks)
def test_lanes_built_from_saved_states_go_on_bit_for_bit(model: str, way: Way, images: Images) -> None:
    """A lane's state holds everything that training depends on."""
    steps = batches(len(images), 8, 20)
    whole = _trained(_lanes_of(model, WIDTHS[model], OPTIMIZERS), images, steps, dtype=torch.float32, way=way)
    half = _trained(_lanes_of(model, WIDTHS[model], OPTIMIZERS), images, steps[:10], dtype=torch.float32, way=way)
    rest = _trained(half, images, steps[10:], dtype=torch.float32, way=way)

    for one, other in zip(whole, rest, strict=True):
        assert one.steps == other.steps == 20
        assert all(torch.equal(tensor, other.weights[name]) for name, tensor in one.weights.items())
        assert all(torch.equal(tensor, other.exp_avg_sq[name]) for name, tensor in one.exp_avg_sq.items())


@pytest.mark.parametrize("model", networks)
def test_evaluation_equals_that_of_plain_modules(model: str, images: Images) -> None:
    """Loss and accuracy agree, over a number of images that no batch size divides."""
    some = Images(images.images[:777], images.labels[:777])
    lanes = Lanes(_lanes_of(model, WIDTHS[model], OPTIMIZERS), IMAGE)
    for indices in batches(len(images), 8, 40):
        lanes.step(images, indices)
    found = lanes.evaluate(some)
    outputs = [module(some.images.float() / 255).detach() for module in lanes.split()]

    assert [accuracy for _, accuracy in found] == [float((o.argmax(1) == some.labels).sum()) / 777 for o in outputs]
    for (loss, _), output in zip(found, outputs, strict=True):
        assert loss == pytest.approx(nn.functional.cross_entropy(output, some.labels).item(), rel=1e-4)


# --- networks that a newcomer may add


NEWCOMERS: dict[str, list[Layer]] = {
    "starts with a pool": [MaxPool2d(2), Conv2d(1, 3, 3), ReLU(), Flatten(), Linear(432, 10)],
    "pools with a remainder": [Conv2d(1, 4, 4), MaxPool2d(3), ReLU(), Flatten(), Linear(256, 10)],
    "convolves twice in a row": [Conv2d(1, 3, 5), Conv2d(3, 5, 3), ReLU(), MaxPool2d(4), Flatten(), Linear(125, 10)],
    "flattens twice": [Flatten(), Flatten(), Linear(784, 20), ReLU(), Flatten(), Linear(20, 10)],
    "is one convolution": [Conv2d(1, 10, 28), Flatten()],
    "has a wide layer": [Flatten(), Linear(784, 20), ReLU(), Linear(20, 300), ReLU(), Linear(300, 10)],
    "rectifies the pixels": [ReLU(), Flatten(), Linear(784, 10)],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NEWCOMERS)
def test_a_new_network_trains_in_lanes_without_code_for_them(name: str, way: Way, images: Images) -> None:
    """Layers in any valid order train in lanes as they do alone."""
    states = [LaneState.initial(NEWCOMERS[name], optimizer, i) for i, optimizer in enumerate(OPTIMIZERS[:3])]
    steps = batches(len(images), 6, 20)
    trained = _trained(states, images, steps, way=way)
    alone = [train_alone(state, images, steps).state_dict() for state in states]

    assert max(map(distance, [state.weights for state in trained], alone)) < 1e-8


def test_lanes_may_differ_in_channels(images: Images) -> None:
    """Convolutions are padded as linear layers are."""
    layers = [
        [Conv2d(1, a, 5), ReLU(), MaxPool2d(2), Conv2d(a, b, 5), ReLU(), MaxPool2d(2), Flatten(), Linear(16 * b, 10)]
        for a, b in ((6, 16), (3, 5), (8, 4))
    ]
    states = [LaneState.initial(own, optimizer, 1) for own, optimizer in zip(layers, OPTIMIZERS, strict=False)]
    steps = batches(len(images), 6, 30)
    trained = _trained(states, images, steps)
    alone = [train_alone(state, images, steps).state_dict() for state in states]

    assert max(map(distance, [state.weights for state in trained], alone)) < 1e-8


@pytest.mark.parametrize("way", WAYS)
def test_images_may_have_colours_and_any_height(way: Way) -> None:
    """Bright images with three channels of 20×13 pixels train as they do alone."""
    draw = np.random.default_rng(0)
    coloured = Arrays(draw.integers(0, 256, (300, 3, 20, 13), np.uint8), draw.integers(0, 10, 300).astype(np.uint8))
    images = Images.of(coloured)
    networks_ = [
        [Conv2d(3, 4, 5), ReLU(), MaxPool2d(2), Flatten(), Linear(128, 10)],
        [Flatten(), Linear(780, 10)],
    ]
    steps = batches(300, 6, 20)
    for layers in networks_:
        states = [LaneState.initial(layers, optimizer, i) for i, optimizer in enumerate(OPTIMIZERS[:3])]
        trained = _trained(states, images, steps, way=way)
        alone = [train_alone(state, images, steps).state_dict() for state in states]

        assert max(map(distance, [state.weights for state in trained], alone)) < 1e-8


# --- lanes that cannot share a pack


def test_a_pack_without_lanes_is_refused() -> None:
    """The error says what is missing."""
    with pytest.raises(LanesError, match="at least one lane"):
        Lanes([], IMAGE)


@pytest.mark.parametrize(
    "other", [[Flatten(), Linear(784, 5), ReLU(), Linear(5, 10)], [Conv2d(1, 2, 28), Flatten(), Linear(2, 10)]]
)
def test_lanes_with_different_kinds_of_layers_are_refused(other: list[Layer]) -> None:
    """The error names both networks, before any training."""
    states = [LaneState.initial(layers, Adam(), 0) for layers in ([Flatten(), Linear(784, 10)], other)]

    with pytest.raises(
        LanesError, match=r"same kinds of layers: Flatten-Linear and .*Linear; train them in separate packs"
    ):
        Lanes(states, IMAGE)


def test_convolutions_with_different_kernel_sizes_are_different_kinds() -> None:
    """A convolution of 5×5 does not train with one of 3×3."""
    states = [
        LaneState.initial([Conv2d(1, 2, size), Flatten(), Linear(2 * (29 - size) ** 2, 10)], Adam(), 0)
        for size in (3, 5)
    ]

    with pytest.raises(LanesError, match=r"Conv2d\(3\).*Conv2d\(5\)"):
        Lanes(states, IMAGE)


@dataclass(frozen=True)
class Doubled(Layer):
    """A kind of layer without lanes."""

    def output_shape(self, shape: Shape) -> Shape:
        return shape


def test_a_kind_of_layer_without_lanes_is_refused() -> None:
    """The error says how to add a lane layer."""
    plain = LaneState.initial([Flatten(), Linear(784, 10)], Adam(), 0)
    state = LaneState([*plain.layers, Doubled()], Adam(), plain.weights, plain.exp_avg, plain.exp_avg_sq)

    with pytest.raises(LanesError, match="Doubled does not train yet: derive it from Wrapped, or write its LaneLayer"):
        Lanes([state], IMAGE)
