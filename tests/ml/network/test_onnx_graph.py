"""The ONNX graph, compared with torch and with ONNX's own reference evaluator."""

import io

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.reference import ReferenceEvaluator

from ml.layers import Conv2d, Dropout, Flatten, Layer, Linear, MaxPool2d, ReLU, Shape, Wrapped
from ml.network.modules import module_of
from ml.network.onnx_graph import _NODES, onnx_bytes

# Every kind of layer, with remainders at the edge of a pool and images that are not square.
EXAMPLES: dict[str, tuple[Shape, list[Layer]]] = {
    "linear": ((1, 3, 4), [Flatten(), Linear(12, 5)]),
    "relu": ((1, 3, 4), [Flatten(), Linear(12, 7), ReLU(), Linear(7, 5)]),
    "dropout": ((1, 3, 4), [Flatten(), Linear(12, 7), ReLU(), Dropout(0.5), Linear(7, 5)]),
    "convolution": ((2, 7, 5), [Conv2d(2, 3, 3), Flatten(), Linear(45, 4)]),
    "pool with a remainder": ((2, 7, 8), [MaxPool2d(3), Flatten(), Linear(8, 4)]),
    "everything": ((3, 11, 12), [Conv2d(3, 4, 2), ReLU(), MaxPool2d(3), Conv2d(4, 5, 1), Flatten(), Linear(45, 3)]),
}


def _example(name: str) -> tuple[bytes, torch.nn.Module, np.ndarray]:
    """Return the graph and the torch module of an example, and images for both."""
    shape, layers = EXAMPLES[name]
    module = module_of(layers, 5)
    weights = {key: tensor.numpy() for key, tensor in module.state_dict().items()}
    pixels = np.random.default_rng(1).random((6, *shape), dtype=np.float32)
    return onnx_bytes(layers, weights, shape), module, pixels


def _torch_outputs(module: torch.nn.Module, pixels: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return module.eval()(torch.from_numpy(pixels)).numpy()


@pytest.mark.parametrize("name", EXAMPLES)
def test_onnx_runtime_computes_what_torch_computes(name: str) -> None:
    """Outputs of ONNX Runtime equal torch's to the precision of float32."""
    graph, module, pixels = _example(name)
    (outputs,) = onnxruntime.InferenceSession(graph).run(["outputs"], {"pixels": pixels})

    np.testing.assert_allclose(outputs, _torch_outputs(module, pixels), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_reference_evaluator_computes_what_torch_computes(name: str) -> None:
    """ONNX's reference implementation agrees, so the result is not a quirk of one runtime."""
    graph, module, pixels = _example(name)
    (outputs,) = ReferenceEvaluator(onnx.load_model_from_string(graph)).run(None, {"pixels": pixels})

    np.testing.assert_allclose(outputs, _torch_outputs(module, pixels), rtol=1e-5, atol=1e-5)


def test_every_kind_of_layer_can_be_exported() -> None:
    """Every layer that a network may use has a node, and the examples above contain each of them."""
    exampled = {type(layer) for _, layers in EXAMPLES.values() for layer in layers}

    assert exampled == set(_NODES)
    assert {kind for kind in Layer.kinds.values() if kind.__module__ == "ml.layers"} - {Wrapped} == set(_NODES)


def test_the_graph_passes_onnxs_full_check() -> None:
    """The model is valid with strict shape inference, and its batch size is free."""
    graph, _, _ = _example("everything")
    model = onnx.load(io.BytesIO(graph))
    onnx.checker.check_model(model, full_check=True)
    (entering,), (leaving,) = model.graph.input, model.graph.output

    assert [d.dim_param or d.dim_value for d in entering.type.tensor_type.shape.dim] == ["n", 3, 11, 12]
    assert [d.dim_param or d.dim_value for d in leaving.type.tensor_type.shape.dim] == ["n", 3]


@pytest.mark.parametrize("n", [1, 2, 100])
def test_a_graph_takes_any_number_of_images(n: int) -> None:
    """The same graph takes one image and a hundred."""
    graph, _, pixels = _example("everything")
    (outputs,) = onnxruntime.InferenceSession(graph).run(["outputs"], {"pixels": np.resize(pixels, (n, 3, 11, 12))})

    assert outputs.shape == (n, 3)


def test_weights_are_in_the_graph_bit_for_bit() -> None:
    """The graph has the trained weights unchanged, with the names of the torch module."""
    graph, module, _ = _example("everything")
    tensors = onnx.load(io.BytesIO(graph)).graph.initializer
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in tensors}

    assert set(held) == set(module.state_dict())
    assert all(np.array_equal(held[name], tensor.numpy()) for name, tensor in module.state_dict().items())
