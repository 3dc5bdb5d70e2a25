"""ONNX graphs from layers and weights, without torch's exporter: in milliseconds instead of seconds."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from ml.layers import Conv2d, Dropout, Flatten, Layer, Linear, MaxPool2d, ReLU, Shape, shapes

OPSET = 21
IR_VERSION = 10  # the newest that ONNX Runtime 1.20 and later read

# For each kind of layer: (layer, input, output, prefix of its weights) → node.
_NODES: dict[type[Layer], Callable[[Any, str, str, str], NodeProto]] = {
    Flatten: lambda layer, x, y, prefix: helper.make_node("Flatten", [x], [y], axis=1),
    ReLU: lambda layer, x, y, prefix: helper.make_node("Relu", [x], [y]),
    Dropout: lambda layer, x, y, prefix: helper.make_node("Identity", [x], [y]),  # dropout is for training only
    Linear: lambda layer, x, y, prefix: helper.make_node(
        "Gemm", [x, f"{prefix}.weight", f"{prefix}.bias"], [y], transB=1
    ),
    Conv2d: lambda layer, x, y, prefix: helper.make_node(
        "Conv", [x, f"{prefix}.weight", f"{prefix}.bias"], [y], kernel_shape=[layer.kernel_size] * 2
    ),
    MaxPool2d: lambda layer, x, y, prefix: helper.make_node(
        "MaxPool", [x], [y], kernel_shape=[layer.kernel_size] * 2, strides=[layer.kernel_size] * 2
    ),
}


def onnx_bytes(layers: list[Layer], weights: dict[str, np.ndarray], shape: Shape) -> bytes:
    """Return a model from `pixels` float32 [n, channels, height, width] in 0..1 to `outputs` float32 [n, classes]."""
    classes = prod(shapes(layers, shape)[-1])
    graph = helper.make_graph(
        _nodes(layers, "outputs", ""),
        "chiffre",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", classes])],
        _initializers(weights, ""),
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    checker.check_model(model)
    return bytes(model.SerializeToString())


def with_novelty(onnx: bytes, layers: list[Layer], weights: dict[str, np.ndarray]) -> bytes:
    """Return a model with a second output `novelty`, float32 [n], which the given layers compute from `pixels`."""
    model = ModelProto.FromString(onnx)
    graph = model.graph
    graph.node.extend(_nodes(layers, "novelty.last", "novelty."))
    graph.node.append(helper.make_node("Squeeze", ["novelty.last", "novelty.axis"], ["novelty"]))
    graph.initializer.extend(_initializers(weights, "novelty."))
    graph.initializer.append(numpy_helper.from_array(np.array([1]), "novelty.axis"))
    graph.output.append(helper.make_tensor_value_info("novelty", TensorProto.FLOAT, ["n"]))
    checker.check_model(model)
    return bytes(model.SerializeToString())


def _nodes(layers: list[Layer], last: str, prefix: str) -> list[NodeProto]:
    """Return the nodes from `pixels` to the value named `last`; values in between and weights have the prefix."""
    names = ["pixels", *(f"{prefix}h{i}" for i in range(len(layers) - 1)), last]
    return [_NODES[type(layer)](layer, names[i], names[i + 1], f"{prefix}{i}") for i, layer in enumerate(layers)]


def _initializers(weights: dict[str, np.ndarray], prefix: str) -> list[TensorProto]:
    return [numpy_helper.from_array(np.asarray(array, np.float32), prefix + name) for name, array in weights.items()]
