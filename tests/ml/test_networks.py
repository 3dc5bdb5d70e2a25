"""The networks: a contract that each keeps on every data set, and tests of single networks."""

from itertools import pairwise, product
from math import prod

import numpy as np
import onnxruntime
import pytest
import torch
from scipy.special import softmax

from ml.datasets import datasets
from ml.layers import Conv2d, Layer, Linear, ShapeError, from_json, parameter_count, shapes, to_json
from ml.network.modules import module_of
from ml.network.onnx_graph import onnx_bytes
from ml.networks import networks
from ml.parameters.params import describe
from ml.parameters.space import suggest
from ml.specs import TuneSpec

CONTRACT = pytest.mark.parametrize(("model", "dataset"), list(product(networks, datasets)))


def _layers(model: str, dataset: str) -> list[Layer]:
    return networks[model].layers(datasets[dataset].shape, len(datasets[dataset].classes), networks[model].params())


def _pixels(dataset: str, n: int) -> torch.Tensor:
    images = np.random.default_rng(0).random((n, *datasets[dataset].shape), dtype=np.float32)
    return torch.from_numpy(images)


@CONTRACT
def test_a_network_has_one_output_per_class(model: str, dataset: str) -> None:
    """The layers fit the data set's images and end in one output per class."""
    leaving = shapes(_layers(model, dataset), datasets[dataset].shape)

    assert leaving[-1] == (len(datasets[dataset].classes),)


@CONTRACT
def test_torch_makes_the_declared_shapes(model: str, dataset: str) -> None:
    """Layer by layer, the torch module gives the declared shapes."""
    layers = _layers(model, dataset)
    x, found = _pixels(dataset, 2), []
    for module in module_of(layers, 0):
        x = module(x)
        found.append(tuple(x.shape[1:]))

    assert found == shapes(layers, datasets[dataset].shape)


@CONTRACT
def test_torch_trains_the_declared_weights(model: str, dataset: str) -> None:
    """The torch module has exactly the weights that the layers name, with their shapes."""
    layers = _layers(model, dataset)
    declared = {f"{i}.{name}": shape for i, layer in enumerate(layers) for name, shape in layer.weights().items()}
    module = module_of(layers, 0)

    assert {name: tuple(tensor.shape) for name, tensor in module.named_parameters()} == declared
    assert set(module.state_dict()) == set(declared)
    assert parameter_count(layers) == sum(tensor.numel() for tensor in module.parameters())


@CONTRACT
def test_initial_weights_follow_from_the_seed_alone(model: str, dataset: str) -> None:
    """Only the seed decides the initial weights, and torch's own random state stays unchanged."""
    layers = _layers(model, dataset)
    before = torch.random.get_rng_state()
    first, again, other = (torch.cat([p.flatten() for p in module_of(layers, seed).parameters()]) for seed in (3, 3, 4))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


@CONTRACT
def test_onnx_runtime_answers_as_torch_does(model: str, dataset: str) -> None:
    """The exported graph gives the probabilities of the torch module to 1e-5."""
    layers = _layers(model, dataset)
    module = module_of(layers, 0)
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    session = onnxruntime.InferenceSession(onnx_bytes(layers, weights, datasets[dataset].shape))
    pixels = _pixels(dataset, 16)
    (outputs,) = session.run(["outputs"], {"pixels": pixels.numpy()})
    with torch.inference_mode():
        expected = module(pixels).softmax(1).numpy()

    np.testing.assert_allclose(softmax(outputs, axis=1), expected, atol=1e-5)


@CONTRACT
def test_layers_survive_a_checkpoints_card(model: str, dataset: str) -> None:
    """The layers in a checkpoint's card build the same network."""
    layers = _layers(model, dataset)

    assert from_json(to_json(layers)) == layers


@CONTRACT
def test_the_corners_of_the_default_space_can_be_trained(model: str, dataset: str) -> None:
    """The network takes every corner of every dimension of its default space."""
    network = networks[model]
    corners = [{name: corner} for name, dimension in network.space.items() for corner in dimension.corners()]
    built = [
        network.layers(datasets[dataset].shape, len(datasets[dataset].classes), network.params.model_validate(corner))
        for corner in corners
    ]

    assert len(built) == len(corners) > 0


@CONTRACT
def test_the_default_space_is_searched_if_none_is_named(model: str, dataset: str) -> None:
    """A tuning job without a search space searches the network's default space."""
    spec = TuneSpec.model_validate({"model": model, "dataset": dataset})

    assert spec.search_space == networks[model].space


@pytest.mark.parametrize(("images", "low", "high"), [(300, 16, 240), (50, 16, 40), (10, 8, 8)])
@pytest.mark.parametrize("model", networks)
def test_the_default_space_has_no_larger_batch_than_images(model: str, images: int, low: int, high: int) -> None:
    """A job limited to few images, four fifths of them for training, draws batches that fit."""
    batches = TuneSpec.model_validate({"model": model, "images": images}).search_space["batch_size"]

    assert batches == networks[model].space["batch_size"].model_copy(update={"low": low, "high": high})


@pytest.mark.parametrize("model", networks)
def test_the_default_space_has_something_to_search(model: str) -> None:
    """A default space draws known parameters, at least one of them from a range."""
    space = networks[model].space
    ranges = [name for name, dimension in space.items() if len(dimension.corners()) > 1]

    assert ranges
    assert set(space) <= set(networks[model].params.model_fields)


@pytest.mark.parametrize("model", networks)
def test_every_parameter_is_described(model: str) -> None:
    """The catalog has each parameter's type and default, and the names of the optimizers."""
    params = networks[model].params
    described = describe(params)

    assert set(described) == set(params.model_fields)
    assert all("default" in field for field in described.values())
    assert described["optimizer"]["enum"] == ["adam", "sgd"]


@pytest.mark.parametrize("model", networks)
def test_every_network_says_what_it_is(model: str) -> None:
    """The catalog has a sentence for each network."""
    assert networks[model].description.endswith((".", "28×28."))


def test_the_cnn_has_lenets_weights() -> None:
    """The CNN has 44,426 weights on 28×28 images, as LeNet-5 without padding."""
    lenet = (6 * 25 + 6) + (16 * 6 * 25 + 16) + (256 * 120 + 120) + (120 * 84 + 84) + (84 * 10 + 10)

    assert parameter_count(_layers("cnn", "mnist")) == 44_426 == lenet


def test_the_cnn_refuses_images_of_8_by_8() -> None:
    """An image too small for two convolutions of 5×5 is refused, and the error says so."""
    with pytest.raises(ShapeError, match="at least 5×5 pixels"):
        networks["cnn"].layers((1, 8, 8), 10, networks["cnn"].params())


def test_the_cnn_takes_colour_and_other_sizes() -> None:
    """Channels, size and classes come from the data set: 32×32 in three colours works too."""
    layers = networks["cnn"].layers((3, 32, 32), 7, networks["cnn"].params())

    assert layers[0] == Conv2d(3, 6, 5)
    assert shapes(layers, (3, 32, 32))[-1] == (7,)


def test_the_perceptron_has_one_layer() -> None:
    """784 inputs and 10 outputs make 7,850 weights."""
    assert parameter_count(_layers("perceptron", "mnist")) == 7_850


@pytest.mark.parametrize(
    ("model", "params", "widths"),
    [
        ("shallow", {"hidden_size": 1685}, [784, 1685, 10]),
        ("mlp", {"hidden_sizes": [977, 878, 5]}, [784, 977, 878, 5, 10]),
        ("mlp", {"hidden_sizes": [600]}, [784, 600, 10]),
    ],
)
def test_hidden_layers_have_the_requested_widths(model: str, params: dict[str, object], widths: list[int]) -> None:
    """Each hidden layer has its own width and fits its neighbours."""
    layers = networks[model].layers((1, 28, 28), 10, networks[model].params.model_validate(params))
    linear = [layer for layer in layers if isinstance(layer, Linear)]

    assert [linear[0].in_features, *(layer.out_features for layer in linear)] == widths
    assert parameter_count(layers) == sum(prod(pair) + pair[1] for pair in pairwise(widths))


class _Lowest:
    """A trial that draws the lowest value of each dimension."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        return low

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return low

    def suggest_categorical(self, name: str, choices: list[object]) -> object:
        return choices[0]


@pytest.mark.parametrize("model", networks)
def test_a_draw_from_the_default_space_is_a_set_of_parameters(model: str) -> None:
    """The network's parameters accept a draw from its default space."""
    drawn = suggest(networks[model].space, _Lowest())
    params = networks[model].params.model_validate(drawn)

    assert params.model_dump(include=set(drawn)) == drawn
