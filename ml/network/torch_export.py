"""The ONNX graph of a network that has a wrapped module, by torch's own exporter: seconds."""

from typing import cast
from warnings import catch_warnings, simplefilter

import torch
from torch import nn

from ml.layers import Shape
from ml.network.onnx_graph import IR_VERSION, OPSET


def exported(module: nn.Module, shape: Shape) -> bytes:
    """A model as `graph.onnx_bytes` makes it, for images of `shape` (channels, height, width)."""
    pixels = torch.zeros(2, *shape)  # any batch but one, which the exporter would take for a constant
    with catch_warnings():
        simplefilter("ignore", FutureWarning)  # torch warns of its own use of what it will remove
        program = torch.onnx.export(
            module.eval(),
            (pixels,),
            input_names=["pixels"],
            output_names=["outputs"],
            dynamic_shapes=({0: torch.export.Dim("n")},),
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    model = cast("torch.onnx.ONNXProgram", program).model_proto  # None only where a file is named
    model.ir_version = IR_VERSION
    return bytes(model.SerializeToString())
