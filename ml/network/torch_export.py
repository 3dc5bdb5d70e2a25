"""The ONNX graph of a network with a wrapped module, by torch's exporter: in seconds."""

from typing import cast
from warnings import catch_warnings, simplefilter

import torch
from torch import nn

from ml.layers import Shape
from ml.network.onnx_graph import IR_VERSION, OPSET


def exported(module: nn.Module, shape: Shape) -> bytes:
    """Return a model like that of `onnx_graph.onnx_bytes`, for images of `shape` (channels, height, width)."""
    pixels = torch.zeros(2, *shape)  # not a batch of 1, which the exporter would take for a constant
    with catch_warnings():
        simplefilter("ignore", FutureWarning)  # torch warns of deprecated functions that it uses itself
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
    model = cast("torch.onnx.ONNXProgram", program).model_proto  # None only if a file is named
    model.ir_version = IR_VERSION
    return bytes(model.SerializeToString())
