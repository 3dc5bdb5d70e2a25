"""The kinds of layer, compared with torch's own."""

import json
from dataclasses import asdict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ml.layers import (
    Conv2d,
    Flatten,
    Layer,
    Linear,
    MaxPool2d,
    ReLU,
    Shape,
    ShapeError,
    flop_count,
    from_json,
    parameter_count,
    shapes,
    to_json,
)

small = st.integers(1, 9)
image_shapes = st.tuples(small, small, small)
kinds: st.SearchStrategy[Layer] = st.one_of(
    st.builds(Linear, small, small),
    st.builds(Conv2d, small, small, small),
    st.builds(MaxPool2d, small),
    st.builds(ReLU),
    st.builds(Flatten),
)


def _torch(layer: Layer) -> nn.Module:
    """Return the torch module with the layer's name."""
    module: nn.Module = getattr(nn, type(layer).__name__)(**asdict(layer))
    return module


def _torch_shape(layer: Layer, shape: Shape) -> Shape | None:
    """Return the shape of torch's output for an image of `shape`; None if torch refuses it."""
    try:
        return tuple(_torch(layer)(torch.zeros(2, *shape)).shape[1:])
    except RuntimeError:
        return None


@settings(deadline=None)
@given(layer=kinds, shape=st.one_of(image_shapes, st.tuples(small)))
def test_a_layer_makes_the_shape_that_torch_makes(layer: Layer, shape: Shape) -> None:
    """A layer gives torch's output shape, and torch refuses what the layer refuses."""
    try:
        found = layer.output_shape(shape)
    except ShapeError:
        found = None

    # torch takes some inputs that no network here may have: a linear layer over the last axis of an image.
    if found is not None or len(shape) == 1:
        assert found == _torch_shape(layer, shape)


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (Linear(784, 10), (1, 28, 28)),
        (Linear(784, 10), (783,)),
        (Conv2d(1, 6, 5), (3, 28, 28)),
        (Conv2d(1, 6, 5), (1, 4, 28)),
        (Conv2d(1, 6, 5), (1, 28, 4)),
        (Conv2d(1, 6, 5), (784,)),
        (MaxPool2d(2), (6, 1, 4)),
        (MaxPool2d(2), (6,)),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(layer: Layer, shape: Shape) -> None:
    """The error names the layer and the input shape."""
    with pytest.raises(ShapeError) as caught:
        layer.output_shape(shape)

    assert type(layer).__name__ in str(caught.value)
    assert str(list(shape)) in str(caught.value)


@given(layer=kinds)
def test_weights_have_torchs_names_and_shapes(layer: Layer) -> None:
    """A layer names exactly the tensors that torch trains, in torch's layout."""
    trained = {name: tuple(tensor.shape) for name, tensor in _torch(layer).named_parameters()}

    assert layer.weights() == trained


@given(layers=st.lists(kinds, max_size=8))
def test_layers_survive_json(layers: list[Layer]) -> None:
    """A list of layers written as JSON text is read back equal."""
    text = json.dumps(to_json(layers), allow_nan=False)

    assert from_json(json.loads(text)) == layers


@given(layers=st.lists(kinds, max_size=8))
def test_parameter_count_equals_torchs(layers: list[Layer]) -> None:
    """The number of weights is the number of elements that torch would train."""
    trained = sum(tensor.numel() for layer in layers for tensor in _torch(layer).parameters())

    assert parameter_count(layers) == trained


@settings(deadline=None)
@given(entering=small, leaving=small)
def test_the_flops_of_a_linear_layer_equal_torchs(entering: int, leaving: int) -> None:
    """A linear layer has the FLOPs of torch's counter for one image."""
    layer = Linear(entering, leaving)
    with FlopCounterMode(display=False) as counter:
        _torch(layer)(torch.zeros(1, entering))

    assert flop_count([layer], (entering,)) == counter.get_total_flops()


@settings(deadline=None)
@given(channels=small, leaving=small, kernel=small, extra=st.tuples(small, small))
def test_the_flops_of_a_convolution_equal_torchs(
    channels: int, leaving: int, kernel: int, extra: tuple[int, int]
) -> None:
    """A convolution has the FLOPs of torch's counter for one image."""
    layer = Conv2d(channels, leaving, kernel)
    shape = (channels, kernel + extra[0], kernel + extra[1])
    with FlopCounterMode(display=False) as counter:
        _torch(layer)(torch.zeros(1, *shape))

    assert flop_count([layer], shape) == counter.get_total_flops()


def test_flops_follow_the_shape_through_the_network() -> None:
    """Each layer is counted with its own input shape, not with the network's."""
    layers: list[Layer] = [Conv2d(1, 6, 5), ReLU(), MaxPool2d(2), Conv2d(6, 16, 5), Flatten(), Linear(1024, 10)]

    assert flop_count(layers, (1, 28, 28)) == 2 * (24 * 24 * 6 * 25 + 8 * 8 * 16 * 6 * 25 + 1024 * 10)


def test_shapes_lists_the_output_shape_of_each_layer() -> None:
    """The output shapes of LeNet's first half are those of its paper without padding."""
    found = shapes([Conv2d(1, 6, 5), ReLU(), MaxPool2d(2), Flatten()], (1, 28, 28))

    assert found == [(6, 24, 24), (6, 24, 24), (6, 12, 12), (864,)]
