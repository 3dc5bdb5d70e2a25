"""From layers and weights to ONNX, without torch's exporter: milliseconds instead of seconds."""

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper

from ml.layers import Conv2d, Flatten, Layer, Linear, MaxPool2d, ReLU, Shape, shapes

OPSET = 21
IR_VERSION = 10  # the newest that ONNX Runtime 1.20 and later read

# For each kind of layer: (layer, input, output, prefix of its weights) → node.
_NODES: dict[type[Layer], Callable[[Any, str, str, str], NodeProto]] = {
    Flatten: lambda layer, x, y, prefix: helper.make_node("Flatten", [x], [y], axis=1),
    ReLU: lambda layer, x, y, prefix: helper.make_node("Relu", [x], [y]),
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
    """A model from `pixels`, float32 [n, channels, height, width] in 0..1, to `outputs`, float32 [n, classes]."""
    last = len(layers) - 1
    names = ["pixels", *(f"h{i}" for i in range(last)), "outputs"]
    nodes = [_NODES[type(layer)](layer, names[i], names[i + 1], str(i)) for i, layer in enumerate(layers)]
    classes = prod(shapes(layers, shape)[-1])
    graph = helper.make_graph(
        nodes,
        "chiffre",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["n", *shape])],
        [helper.make_tensor_value_info("outputs", TensorProto.FLOAT, ["n", classes])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in weights.items()],
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
    model.ir_version = IR_VERSION
    checker.check_model(model)
    return bytes(model.SerializeToString())
